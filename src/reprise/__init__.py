"""Reprise: reproducible fine-tuning recipes.

The data's way through the code is a straight line, a folder a stage: fetch → prepare → train → evaluate.
"""
