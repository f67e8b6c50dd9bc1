"""A web page that shows what a trained model predicts, attends to and hands over. Nothing else depends on it."""
