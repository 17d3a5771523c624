"""The bundled tiny model: the world of moving shapes, its captions and judge, and the stages that train the three files."""
