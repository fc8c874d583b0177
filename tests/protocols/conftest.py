from eager import run_eagerly

__all__ = ["run_eagerly"]
