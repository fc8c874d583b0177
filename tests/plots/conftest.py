from drawings import drawn, refused, rendered

__all__ = ["drawn", "refused", "rendered"]
