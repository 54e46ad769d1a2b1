"""Networks that `export_models.py` knows by name. Each module here offers one or more `Adapter`s; nothing is downloaded on import."""
