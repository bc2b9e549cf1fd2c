"""Around the pipeline: cook a commit again and judge what came out, measure the seeds' noise, hand the model on."""
