"""The stage teacher: what the model that `train.distill` names answers to the examples that are trained on."""
