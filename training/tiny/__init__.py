"""The bundled tiny model: the world of moving shapes, its captions and judge, and the stages of its training."""
