"""TF32, with which a GPU multiplies fp32 matrices and rounds their values to 10 bits of mantissa."""

import warnings

import torch


def disable_tf32() -> None:
    """Compute products and convolutions of fp32 in fp32.

    By default cuDNN's convolutions use TF32, and cuBLAS too where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as in some
    base images. The recipe's precision would then mean something else on a GPU that has it (Ampere and newer).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API")  # of torch 2.9, in the environment for TPUs
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
