# The README's pictures from today's code:  make pictures
# Trains the built-in task, in two minutes on two cores, as the README shows it. Chromium takes the picture of the demo;
# CHROMIUM=google-chrome names another. Not drawn: tuning.png and the study's pictures, which come from longer runs, as
# docs/tuning.md and docs/handoff_study.md say.
CHROMIUM ?= chromium
PORT ?= 8123
PYTHON := .venv/bin/python
RUN := outputs/pictures/first

.PHONY: pictures
pictures:
	rm -rf $(RUN)
	$(PYTHON) scripts/train.py threads=2 hydra.run.dir=$(RUN)
	cp $(RUN)/learning_curves.png docs/learning_curves.png
	echo "jeudi 2 janvier 2003" | $(PYTHON) scripts/predict.py checkpoint=$(RUN)/best.ckpt attention=$(RUN)/attention
	cp $(RUN)/attention/1.png docs/attention.png
	$(PYTHON) scripts/explain_handoff.py output=docs/handoff.png
	$(PYTHON) scripts/explain_handoff.py compact=true output=docs/handoff_right.png
	$(PYTHON) scripts/explain_handoff.py compact=true handoff=wrong_first_rows output=docs/handoff_first_rows.png
	$(PYTHON) scripts/explain_handoff.py handoff=wrong_first_rows output=docs/handoff_wrong.png
	@command -v $(CHROMIUM) > /dev/null || { echo "docs/demo.png is not drawn: there is no $(CHROMIUM)"; exit; }; \
	$(PYTHON) scripts/demo.py checkpoint=$(RUN)/best.ckpt port=$(PORT) 2> $(RUN)/demo.log & \
	while kill -0 $$! && ! grep http $(RUN)/demo.log; do sleep 1; done; \
	grep -q http $(RUN)/demo.log || { cat $(RUN)/demo.log; exit 1; }; \
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,1640 \
		--virtual-time-budget=10000 --screenshot=docs/demo.png http://127.0.0.1:$(PORT) 2> /dev/null; \
	kill $$!; \
	$(PYTHON) -c "from PIL import Image; Image.open('docs/demo.png').quantize(256, kmeans=2).save('docs/demo.png', optimize=True)"
