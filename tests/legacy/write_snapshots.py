"""Write snapshots as old projects of the family did: panohead.pkl and eg3d.pkl in the folder that is given.

Run in a process of its own, where `training` is the folder beside this script.  The modules in it were written for these
tests.  They have the shape of the family's: class and attribute names, what they import from where, how they call it.
"""

import collections
import copyreg
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from fill import fill

import dnnlib
from torch_utils import persistence

GOLDEN = Path(__file__).parents[1] / "golden"
# What torch.nn.Module gives each module: in torch 1.5, what came up to 1.11, and all there is today.
TORCH_1_5 = "training _parameters _buffers _backward_hooks _forward_hooks _forward_pre_hooks _modules".split()
NEWER = "_non_persistent_buffers_set _is_full_backward_hook _state_dict_hooks _load_state_dict_pre_hooks".split()
TORCH_NOW = set(vars(torch.nn.Module()))
EG3D_AXES = [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]


class OldPickler(pickle.Pickler):
    """Objects as old snapshots store them: no names of modules, no texts but the class's own, attributes of an old torch."""

    by_name = ("RaySampler", "MipRayMarcher2")
    missing = TORCH_NOW - set(TORCH_1_5 + NEWER)

    def reducer_override(self, obj):
        if not isinstance(obj, torch.nn.Module):
            return NotImplemented
        state = {name: value for name, value in vars(obj).items() if name not in self.missing}
        for name in ("_parameters", "_buffers", "_modules"):
            state[name] = collections.OrderedDict(state[name])
        name = type(obj).__name__
        if not persistence.is_persistent(obj) or name in self.by_name:
            return copyreg.__newobj__, (type(obj),), state
        source = Path(sys.modules[type(obj).__module__].__file__).read_text()
        meta = dnnlib.EasyDict(type="class", version=6, module_src=source, class_name=name, state=state)
        return persistence._reconstruct_persistent_obj, (meta,)


class Eg3dPickler(OldPickler):
    by_name = ("OSGDecoder", "ImportanceRenderer", "MipRayMarcher2", "RaySampler")
    missing = TORCH_NOW - set(TORCH_1_5)


def build(record, class_name):
    kwargs = dnnlib.EasyDict(json.loads((GOLDEN / f"{record}_kwargs.json").read_text()), class_name=class_name)
    for name in ("mapping_kwargs", "rendering_kwargs", "sr_kwargs"):
        if name in kwargs:
            kwargs[name] = dnnlib.EasyDict(kwargs[name])
    return fill(dnnlib.util.construct_class_by_name(**kwargs)).eval().requires_grad_(False)


def write(path, pickler, **content):
    data = dict(training_set_kwargs=dnnlib.EasyDict(path="heads.zip", resolution=np.int64(128)), augment_pipe=None, **content)
    with open(path, "wb") as file:
        pickler(file).dump(data)


def main(folder):
    G = build("generator_small", "training.triplane.TriPlaneGenerator")
    D = build("discriminator_small", "training.dual_discriminator.MaskDualDiscriminatorV2")
    G._last_planes = torch.zeros([1, 3, 4])
    write(folder / "panohead.pkl", OldPickler, G=G, D=D, G_ema=G)

    from training import eg3d_triplane, triplane

    G = build("eg3d_small", "training.eg3d_triplane.TriPlaneGenerator")
    G.renderer.plane_axes = torch.tensor(EG3D_AXES)
    eg3d_triplane.OSGDecoder.__module__ = "training.triplane"  # where EG3D has it
    triplane.OSGDecoder = eg3d_triplane.OSGDecoder
    write(folder / "eg3d.pkl", Eg3dPickler, G_ema=G)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
