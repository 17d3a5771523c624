"""Training: the procedural world of moving shapes, its captions and judge, and the tiny model's trainers."""
