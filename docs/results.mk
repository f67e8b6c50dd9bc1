# The main experiments of results.md, from a folder of data, after make install:  make -f docs/results.mk g2p DATA=FOLDER
# Each target ends with a table, summary.md or vote.md, in outputs/results. An interrupted target goes on when it is run
# again. To share g2p, multilingual or inflection among processes, give each its own SEEDS; to share g2p, or LANGUAGES.
#
# DATA holds sigmorphon2020-g2p/{train,dev}/LANGUAGE_{train,dev}.tsv, sigmorphon2022-inflection/LANGUAGE_large.train and
# LANGUAGE.dev, and multi30k/{train,val}.{de,en}.gz.
SEEDS ?= 1,2,3
LANGUAGES ?= arm,bul,fre,geo,gre,hin,hun,ice,kor,lit
TRAIN := OMP_NUM_THREADS=1 .venv/bin/python scripts/train.py -m resume=auto trainer=cpu
G2P := 'data.train=$(DATA)/sigmorphon2020-g2p/train/$${dataset}_train.tsv' \
	'data.val=$(DATA)/sigmorphon2020-g2p/dev/$${dataset}_dev.tsv' \
	'data.test=$(DATA)/sigmorphon2020-g2p/dev/$${dataset}_dev.tsv'
INFLECTION := 'data.train=$(DATA)/sigmorphon2022-inflection/$${dataset}_large.train' \
	'data.val=$(DATA)/sigmorphon2022-inflection/$${dataset}.dev' \
	'data.test=$(DATA)/sigmorphon2022-inflection/$${dataset}.dev'
MULTI30K := data.train=[$(DATA)/multi30k/train.de.gz,$(DATA)/multi30k/train.en.gz] \
	data.val=[$(DATA)/multi30k/val.de.gz,$(DATA)/multi30k/val.en.gz] \
	data.test=[$(DATA)/multi30k/val.de.gz,$(DATA)/multi30k/val.en.gz]
JOINED := outputs/results/joined
SUBDIR := '$${dataset}-$${seed}'

.PHONY: all g2p vote multilingual inflection translation
all: g2p vote multilingual inflection translation

g2p:
	$(TRAIN) experiment=g2p dataset=$(LANGUAGES) seed=$(SEEDS) $(G2P) \
		hydra.sweep.dir=outputs/results/g2p hydra.sweep.subdir=$(SUBDIR)

vote:
	$(TRAIN) experiment=g2p_vote dataset=$(LANGUAGES) seed=1 $(G2P) hydra.sweep.dir=outputs/results/vote

multilingual:
	mkdir -p $(JOINED)
	for part in train dev; do for language in arm bul fre geo gre hin hun ice kor lit; do \
		awk -v language=$$language '{print $$0 "\t" language}' $(DATA)/sigmorphon2020-g2p/$$part/$${language}_$$part.tsv; \
		done > $(JOINED)/$$part.tsv; done
	$(TRAIN) experiment=g2p_multilingual seed=$(SEEDS) dataset=joined data.train=$(JOINED)/train.tsv \
		data.val=$(JOINED)/dev.tsv data.test=$(JOINED)/dev.tsv \
		hydra.sweep.dir=outputs/results/multilingual hydra.sweep.subdir=$(SUBDIR)

inflection:
	$(TRAIN) experiment=inflection dataset=hun,kat seed=$(SEEDS) $(INFLECTION) \
		hydra.sweep.dir=outputs/results/inflection hydra.sweep.subdir=$(SUBDIR)

translation:
	$(TRAIN) experiment=translation dataset=multi30k seed=1 $(MULTI30K) \
		hydra.sweep.dir=outputs/results/translation hydra.sweep.subdir=$(SUBDIR)
