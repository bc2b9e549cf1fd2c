"""Kinds of tasks and their metrics. Nothing here imports the rest of the package.

A kind of task is one file, which knows its labels, head, loss, decoding, baseline, plots and words. A new kind is a
class with the members of `kind.TaskKind`, and an entry in `registry.task_kind`.
"""
