"""Open the model that is asked: the final one, an exported one, one in ONNX, which needs no torch, or an ensemble."""

from dataclasses import replace
from pathlib import Path

from reprise.commands.packages import ONNX_LOCK, require_packages
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.paths import FINAL_MODEL
from reprise.ensemble.folder import is_ensemble, member_folders
from reprise.modeling.inputs import TextModel
from reprise.modeling.recipe import ModelRecipe, read_model_recipe
from reprise.onnx.files import check_judged, find_onnx


def open_model(path: Path | None, threads: int | None = None) -> tuple[ModelRecipe, TextModel]:
    """Open a model, and say on stderr what differs from what it was trained for.

    Args:
        path: folder of `reprise export` or `reprise ensemble`, or a file of ONNX; None for the final model.
        threads: of a model in ONNX; None for one on each processor.

    Raises:
        UserError: there is no model, or its files are not those that were evaluated.
    """
    if path is not None and (file := find_onnx(path)):
        require_packages("onnxruntime", lock=ONNX_LOCK, key="predict")
        check_judged(file)
        from reprise.onnx.model import OnnxModel

        model = OnnxModel(file, threads)
        return model.recipe, model
    if threads:
        raise UserError(key="--threads", expected="a model in ONNX; the threads of others are their recipe's")
    if path is not None and is_ensemble(path):
        return open_ensemble(path)
    recipe, cpu = open_final_model() if path is None else prepare_torch(path)
    from reprise.modeling.inference import load_text_model

    return recipe, load_text_model(recipe, cpu=cpu, folder=path or FINAL_MODEL)


def open_ensemble(path: Path) -> tuple[ModelRecipe, TextModel]:
    """Open the members of an ensemble, all at once, as one model.

    Raises:
        UserError: a file is not the one that was judged, or the members cannot be asked in one process.
    """
    from reprise.ensemble.members import check_process
    from reprise.ensemble.model import ensemble_model, joined_recipe

    folders = member_folders(path)
    check_process([str(folder) for folder in folders], [read_model_recipe(folder) for folder in folders])
    prepared = [prepare_torch(folder) for folder in folders]
    recipe = joined_recipe([each for each, _ in prepared])
    from reprise.modeling.inference import load_text_model

    members = [
        load_text_model(each, cpu=cpu, folder=folder) for (each, cpu), folder in zip(prepared, folders, strict=True)
    ]
    return recipe, ensemble_model(members, recipe.kind)


def open_final_model() -> tuple[ModelRecipe, bool]:
    """Return what `prepare_torch` does for the final model, and say what has changed since it was trained."""
    recipe, cpu = prepare_torch(FINAL_MODEL)
    from reprise.commands.final_model import print_changes

    print_changes(recipe)
    return recipe, cpu


def prepare_torch(folder: Path) -> tuple[ModelRecipe, bool]:
    """Read a model's recipe, and start again with the caps of its precision where it has some.

    Returns:
        The recipe, see `for_this_processor`; and whether to use the CPU even if there is a GPU.
    """
    from reprise.hardware import current_hardware, require_device
    from reprise.modeling.portable import restart_with_caps

    recipe = for_this_processor(read_model_recipe(folder))
    restart_with_caps(recipe.train)
    return recipe, require_device(current_hardware()) == "cpu"


def for_this_processor(recipe: ModelRecipe) -> ModelRecipe:
    """Return a model's recipe, in fp32 where the processor lacks what fp32-portable needs: `predict` pins no bit."""
    from reprise.modeling.portable import check_processor

    try:
        check_processor(recipe.train, "cpu")
    except UserError:
        echo("predict: this processor cannot compute fp32-portable, so the last bits may differ", err=True)
        return replace(recipe, train=replace(recipe.train, precision="fp32"))  # type: ignore[type-var]
    return recipe
