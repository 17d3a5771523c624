"""Nodes that make a data set of raw footage: its shots found and scored, and those chosen that are worth it."""

from __future__ import annotations

from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.schema import advanced, io, schema
from .comfy.training import folders

# training/ is imported where a node runs: a graph that prepares nothing does not pay for it.
CUTS = ("1.2", "1.1", "1.3", "transnet", "none")
CAMERAS = ("any", "static", "moving")
# What is measured: input → the measure's name.
MEASURES = {
    "motion": "flow_dis", "camera": "cmotion", "quality": "quality", "duplicates": "phash", "text_overlay": "ocr",
}  # fmt: skip
SHORTEST, LONGEST = 0.5, 3600.0  # seconds


def _limit(name: str, default: float, most: float, step: float, what: str) -> io.Float.Input:
    """An input that leaves out `what`."""
    tooltip = f"{what} are left out. 0 asks nothing."
    return io.Float.Input(name, default=default, min=0.0, max=most, step=step, tooltip=tooltip)


class OpenSoraPrepareClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Training",
            shows_report=True,
            node_id="OpenSoraPrepareClips",
            display_name="Open-Sora Prepare Clips",
            description="Finds the shots in raw footage and scores each: how much moves, what the camera does, how "
            "sharp it is, what repeats. Nothing is copied or changed: the result is a table of shots. Stop it at any "
            "time; queued again, it goes on from there.",
            search_aliases="footage, shots, scenes, scene detection, cut, split video, clips, dataset, motion score",
            is_output_node=True,
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folders.choices(folders.FOOTAGE),
                    default=folders.FOOTAGE,
                    tooltip="Where the footage is: a folder inside ComfyUI's input folder, with videos and pictures, "
                    "also in folders within it. The bundled example is three small films with some flaws.",
                ),
                io.Combo.Input(
                    "cuts",
                    options=list(CUTS),
                    default=CUTS[0],
                    tooltip="How shots are found. 1.1, 1.2, 1.3: by the change from frame to frame, as strict as that "
                    "Open-Sora was; 1.3 finds most. transnet: a small network that knows cuts. none: a file is one "
                    "shot.",
                ),
                io.Float.Input(
                    "shortest",
                    default=SHORTEST,
                    min=0.0,
                    max=LONGEST,
                    step=0.1,
                    tooltip="Shots that last less, in seconds, are left out. Training needs 17 frames and more.",
                ),
                io.Boolean.Input(
                    "motion",
                    default=True,
                    tooltip="Score how much moves: how far pixels go within ten frames, in a picture 576 pixels wide. "
                    "0 stands still, below 2 little happens, 10 to 30 is lively.",
                ),
                io.Boolean.Input(
                    "camera",
                    default=True,
                    tooltip="Say what the camera does: static, pan left, zoom in and so on.",
                ),
                io.Boolean.Input(
                    "quality",
                    default=True,
                    tooltip="Score sharpness, exposure and colour. They say nothing about beauty: for that connect "
                    "clip_vision.",
                ),
                io.Boolean.Input(
                    "duplicates",
                    default=True,
                    tooltip="Find shots that repeat another one, also scaled or compressed again. The best stays, the "
                    "others are left out.",
                ),
                io.Boolean.Input(
                    "text_overlay",
                    default=False,
                    tooltip="Count places with text in the picture, such as titles. Takes longest. Leave such shots "
                    "out by the expression ocr == 0 in Filter Clips.",
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What every shot shows whose file has no text file of its name beside it (beach.mp4, "
                    "beach.txt). Type it, or connect any text. Training needs a caption, or a trigger in Dataset.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIP ViT-L/14 from Load CLIP Vision, for the aesthetic score: how people would rate a "
                    "shot, 1 to 10. It needs aesthetic_head too.",
                ),
                advanced(
                    io.Combo.Input(
                        "aesthetic_head",
                        options=folders.heads(),
                        default=folders.NO_HEAD,
                        optional=True,
                        tooltip="The head of the aesthetic score: a small file in models/clip_vision or "
                        "models/classifiers. none: no such score.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "transitions",
                        default=0.0,
                        min=0.0,
                        max=60.0,
                        step=0.1,
                        optional=True,
                        tooltip="Look for slow transitions, too: how long they last, in seconds; 1 finds most "
                        "dissolves. 0 looks for hard cuts alone. With 1.1, 1.2 and 1.3 only.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "path",
                        default="",
                        optional=True,
                        tooltip="A folder of footage anywhere on this computer. It is read instead of the folder "
                        "above.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="manifest",
                    tooltip="The table of shots: where it is. For Filter Clips, or for path of Open-Sora Dataset.",
                ),
                io.Image.Output(
                    tooltip="Counts, scores, the shots of each file on its time line, and what is left out."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The same in words, and where the report is: a page with every shot, to be opened in a "
                    "browser.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, folder: str | None = None, path: str | None = "", cuts: str | None = CUTS[0],
        transitions: float | None = 0.0, motion: bool | None = False, camera: bool | None = False,
        duplicates: bool | None = False, text_overlay: bool | None = False,
        aesthetic_head: str | None = folders.NO_HEAD,
    ) -> bool | str:  # fmt: skip
        from .comfy.training import footage

        asked = {"motion": motion, "camera": camera, "duplicates": duplicates, "text_overlay": text_overlay}
        wired = Node.of(cls).wired("clip_vision")
        return told(
            (footage.source, folder, path),
            (footage.check_cuts, cuts, transitions),
            (footage.check_measures, tuple(MEASURES[name] for name, on in asked.items() if on)),
            (footage.check_pair, wired, aesthetic_head),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", path: str | None = "", **others: object) -> str:
        return folders.state_of_footage(folder, path or "")

    @classmethod
    def execute(
        cls, folder: str, cuts: str, shortest: float, motion: bool, camera: bool, quality: bool, duplicates: bool,
        text_overlay: bool, captions: str = "", clip_vision: io.ClipVision.Type | None = None,
        aesthetic_head: str = folders.NO_HEAD, transitions: float = 0.0, path: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from .comfy.training import footage, pictures

        asked = {"motion": motion, "camera": camera, "quality": quality, "duplicates": duplicates}
        asked["text_overlay"] = text_overlay
        measures = tuple(MEASURES[name] for name, on in asked.items() if on)
        choices = footage.Choices(cuts, transitions, shortest, measures, " ".join(captions.split()))
        settings = footage.settings_of(choices, clip_vision, aesthetic_head)
        manifest = footage.prepared(footage.source(folder, path), settings)
        picture = footage.heart(manifest)
        report = footage.said(manifest, f"report: {footage.report_of(manifest)}")
        return io.NodeOutput(str(manifest), picture, report, ui=pictures.shown(picture, cls, text=(report,)))


class OpenSoraFilterClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Training",
            shows_report=True,
            node_id="OpenSoraFilterClips",
            display_name="Open-Sora Filter Clips",
            description="Chooses which shots of prepared footage are trained on, and shows them beside those left out, "
            "each with the reason. The table that comes in stays as it is.",
            search_aliases="filter footage, choose shots, threshold, motion, sharpness, aesthetic, dataset, curate",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "manifest",
                    default="",
                    tooltip="The table of shots: connect that of Open-Sora Prepare Clips, or give the path of one.",
                ),
                _limit("min_motion", 0.5, 1000.0, 0.1, "Shots in which less moves (0 stands still, 10 is lively)"),
                _limit("max_motion", 0.0, 1000.0, 0.1, "Shots in which more moves (above 40 is hectic)"),
                _limit("min_sharpness", 0.0, 1.0, 0.01, "Shots that are less sharp, 0 to 1 (a blur has 0.3 at most),"),
                _limit("min_seconds", 0.0, LONGEST, 0.1, "Shorter shots"),
                _limit("max_seconds", 0.0, LONGEST, 0.1, "Longer shots"),
                _limit("min_aesthetic", 0.0, 10.0, 0.1, "Shots with a lower aesthetic score, 1 to 10 (5.5 is fair),"),
                io.Combo.Input(
                    "camera",
                    options=list(CAMERAS),
                    default=CAMERAS[0],
                    tooltip="static keeps shots whose camera stands still, moving those whose camera pans, tilts or "
                    "zooms, any keeps both.",
                ),
                io.Boolean.Input(
                    "drop_duplicates",
                    default=True,
                    tooltip="On: shots that repeat another one stay out. Off: they are kept like others.",
                ),
                advanced(
                    io.String.Input(
                        "expression",
                        default="",
                        optional=True,
                        tooltip="What must hold as well, in the table's columns: ocr == 0 and colorfulness > 15, or "
                        '"beach" in text.',
                    )
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="manifest", tooltip="The filtered table: where it is. For path of Open-Sora Dataset."
                ),
                io.Image.Output(tooltip="The shots as strips of film: those kept, then those left out and why."),
                io.String.Output(
                    display_name="report", tooltip="How many are kept, and how many are left out for which reason."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, manifest: str | None = None, min_motion: float | None = 0.0, max_motion: float | None = 0.0,
        min_seconds: float | None = 0.0, max_seconds: float | None = 0.0, camera: str | None = CAMERAS[0],
        expression: str | None = "",
    ) -> bool | str:  # fmt: skip
        from .comfy.training import footage

        values = (min_motion, max_motion, min_seconds, max_seconds, camera, expression)
        return told((footage.manifest_at, manifest), (footage.check_thresholds, *values))

    @classmethod
    def fingerprint_inputs(cls, manifest: str | None = "", **others: object) -> str:
        return folders.state_of("", manifest or "") if manifest else ""

    @classmethod
    def execute(
        cls, manifest: str, min_motion: float, max_motion: float, min_sharpness: float, min_seconds: float,
        max_seconds: float, min_aesthetic: float, camera: str, drop_duplicates: bool, expression: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from .comfy.training import footage, pictures

        thresholds = footage.Thresholds(
            min_motion, max_motion, min_sharpness, min_seconds, max_seconds, min_aesthetic, camera, drop_duplicates,
            expression,
        )  # fmt: skip
        found = footage.kept(footage.manifest_at(manifest), thresholds)
        picture, report = footage.film(found), footage.said(found)
        return io.NodeOutput(str(found), picture, report, ui=pictures.shown(picture, cls, text=(report,)))
