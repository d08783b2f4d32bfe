"""Networks that are used but not trained any more: what depends on their parameters alone is done once."""

from flax import nnx


def frozen(network: nnx.Module) -> nnx.Module:
  """A copy that computes the same, with parameters cast, normalised and arranged as its layers need them.

  Convolutions get parameters of their compute dtype. A module that can do more has a method `freeze`, which changes it
  in place and may be called twice.
  """
  return _freeze(nnx.clone(network))


@nnx.jit
def _freeze(network):
  for _, module in list(nnx.iter_modules(network)):
    if hasattr(module, 'freeze'):
      module.freeze()
    if isinstance(module, nnx.Conv) and module.dtype is not None:
      for name in ('kernel', 'bias'):
        if (param := getattr(module, name)) is not None:
          setattr(module, name, nnx.Param(param[...].astype(module.dtype)))
  return network
