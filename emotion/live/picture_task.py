"""Pictures by themselves: analysed, annotated, written, shown in a window."""

from dataclasses import replace
from pathlib import Path

from emotion.live.annotation import RunConfig
from emotion.live.face_log import face_row
from emotion.live.face_tracks import face_json
from emotion.live.viewer import KEY_WAIT_MS, Viewer
from facevox.batch import FileItem, Outcome, Task
from facevox.files import IMAGE_PATTERNS, find_files, read_image, relative_name, write_image, write_json
from facevox.naming import plan_names


def plan_pictures(path: Path, output_dir: Path) -> list[FileItem]:
    """An item for a picture, or for each picture below a folder; `output` is the annotated one.

    Raises:
        UserError: No such file or folder, no picture in it, or the file is not a picture.
    """
    if path.is_dir():
        files, root = find_files(path, IMAGE_PATTERNS, [output_dir], what="INPUT_PATH"), path
    else:
        read_image(path)  # a fault of a single picture is reported at once
        files, root = [path], path.parent
    names = [relative_name(file, root) for file in files]
    outputs = plan_names(names, ".jpg")
    return [
        FileItem(name, str(file), output) for name, file, output in zip(names, files, outputs, strict=True)
    ]


class PictureTask(Task[FileItem]):
    """Writes `<picture>.jpg` with boxes and bars, and `<picture>.json`, for each picture.

    Args:
        config: How they are analysed and annotated.
        viewer: Shows them as well.
        wait_ms: Time that each is shown; 0: until a key is pressed.
    """

    def __init__(self, config: RunConfig, viewer: Viewer, wait_ms: int = KEY_WAIT_MS) -> None:
        self.config = config
        self.viewer = viewer
        self.wait_ms = wait_ms

    def open(self, output_dir: Path) -> None:
        """Loads the model."""
        super().open(output_dir)
        self.classifier, self.analyser, self.annotator = self.config.open()

    def process(self, item: FileItem) -> Outcome:
        """Analyses a picture by itself; one without a face counts as done too, with a row that has no face.

        Raises:
            ImageError: Not a readable picture.
        """
        image = read_image(item.path)
        self.analyser.reset()
        faces = self.analyser.analyse(image, 0.0)
        # Track numbers never come again; the faces of a picture by itself are the first, the second …
        faces = [replace(face, track_id=number) for number, face in enumerate(faces, start=1)]
        annotated = self.annotator.draw(image, faces)
        picture = item.output
        about = str(Path(picture).with_suffix(".json"))
        names = self.classifier.class_names
        write_image(self.output_dir / picture, annotated, sync=False)
        write_json(
            self.output_dir / about,
            {
                "kind": "image",
                "width": image.shape[1],
                "height": image.shape[0],
                "classes": list(names),
                "faces": [face_json(face, names) for face in faces],
            },
        )
        self.viewer.show(annotated, self.wait_ms)
        first: dict[str, object] = {"picture": item.name, "annotated": picture}
        rows = [first | face_row(face, names) for face in faces] or [first]
        return Outcome(rows=rows, outputs=[picture, about])

    def close(self) -> None:
        """Closes the analyser."""
        self.analyser.close()
