"""The plugin of napari: `napari.yaml` says what it offers. Nothing here imports napari unless napari calls it."""
