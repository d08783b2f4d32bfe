"""The challenge's own data: how it is packed, and two cameras that saw the same."""
