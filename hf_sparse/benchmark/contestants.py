"""Who takes part: the student in all its forms, its teacher, and everyone that it is compared with."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_sparse.benchmark.journal import digest

PeerGroup = Literal["student", "encoder", "lexical"]
NO_GPU = "no GPU on this machine"
_PEERS = Path(__file__).with_name("peers")
_STUDENT_PACKAGES = ("hf-sparse", "numba", "numpy")
_TORCH_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A contestant: which class of which module in `peers/`, with what options, in which environment.

    `files` are those of its model, `environment` one of `environments.REQUIREMENTS`, `hidden` the packages it must not
    find. `is_slow` ones work in internal batches of 32; those with `has_weights` False answer at random. `missing` is
    why it cannot take part, known beforehand.
    """

    name: str
    title: str
    group: PeerGroup
    module: str
    peer: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    environment: str | None = None
    hidden: tuple[str, ...] = ()
    has_weights: bool = True
    is_slow: bool = False
    is_prepared: bool = False
    is_compiled: bool = False
    missing: str | None = None

    @property
    def path(self) -> Path:
        """The module's file."""
        return _PEERS / f"{self.module}.py"

    @property
    def key(self) -> str:
        """A hash that changes with all that the contestant's times may depend on."""
        state = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for path in map(Path, self.files)
            if path.exists()
        ]
        return digest(asdict(self), state, self.path.read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Field:
    """What contestants are made from: folders of models, and the file of training texts; None where there is none."""

    student: Path
    compressed: Path | None
    teacher: Path | None
    encoder: Path | None
    train: Path | None
    teacher_max_length: int
    peers: bool
    gpu: bool


def make_contestants(given: Field) -> list[Contestant]:
    """Return all contestants in the order of the table; those that lack something say so in `missing`."""
    config = read_config(given.student)
    names = [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
    found = list(_students(given))
    if given.teacher is not None or given.peers:
        found += _encoders(given, names)
    if given.peers:
        found += _lexical(given, config, names)
    return found


def baseline() -> Contestant:
    """Return the process that holds one cached kernel and no model."""
    return Contestant(
        name="baseline",
        title="a process with one cached kernel",
        group="student",
        module="baseline",
        peer="CachedKernel",
        packages=("numba", "numpy"),
        is_compiled=True,
        has_weights=False,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a student.

    Raises:
        ValueError: If the folder holds no `config.json` with labels.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a student: it has no config.json")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "id2label" not in config:
        config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    return config


def row_bytes(config: dict[str, Any]) -> int:
    """Return the bytes of a row of a student's table, scale and offset included."""
    width = int(config["embedding_size"])
    kind = config.get("table_dtype", "float32")
    return {
        "float32": 4 * width,
        "float16": 2 * width,
        "bfloat16": 2 * width,
        "int8": width + 8,
        "int4": (width + 1) // 2 + 4,
    }[kind]


def _students(given: Field) -> Iterator[Contestant]:
    folders = [given.student, *([given.compressed] if given.compressed else [])]
    forms = {folder: _form(folder) for folder in folders}
    if len(set(forms.values())) < len(folders):
        forms = {given.student: "float", folders[-1]: "compressed"}
    for folder in reversed(folders):
        yield _student(folder, f"runtime-{forms[folder]}", f"student {forms[folder]}, runtime", "Runtime")
    yield _student(given.student, "extraction", "extraction alone", "Extraction", has_weights=False)
    for kind, title, peer in (("pipeline", "pipeline", "Pipeline"), ("model", "model(**tokenizer)", "ModelCall")):
        for folder in reversed(folders):
            form = forms[folder]
            packages = (*_TORCH_PACKAGES, *_STUDENT_PACKAGES)
            yield _student(folder, f"{kind}-{form}", f"student {form}, {title}", peer, packages=packages)
            yield _student(
                folder,
                f"{kind}-{form}-plain",
                f"student {form}, {title}, no hf_sparse",
                peer,
                packages=_TORCH_PACKAGES,
                hidden=("hf_sparse", "numba"),
                is_compiled=False,
            )
    on_gpu: dict[str, Any] = {"options": {"device": "cuda"}, "missing": None if given.gpu else NO_GPU}
    yield _student(given.student, "pipeline-gpu", "student, pipeline, GPU", "Pipeline", **on_gpu)
    yield _student(given.student, "model-gpu", "student, model(**tokenizer), GPU", "ModelCall", **on_gpu)


def _student(folder: Path, name: str, title: str, peer: str, **settings: Any) -> Contestant:
    options = {"model": str(folder), **settings.pop("options", {})}
    weights = tuple(str(path) for path in sorted(folder.glob("*.safetensors")))
    files = tuple(path for path in weights if peer != "Extraction" or path.endswith("vocabulary.safetensors"))
    defaults: dict[str, Any] = {"packages": _STUDENT_PACKAGES, "is_compiled": True}
    return Contestant(
        name=name,
        title=title,
        group="student",
        module="student",
        peer=peer,
        options=options,
        files=files,
        **(defaults | settings),
    )


def _form(folder: Path) -> str:
    """Return what a student's rows are stored as, the way names say it."""
    dtype = str(read_config(folder).get("table_dtype", "float32"))
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(dtype, dtype)


def _encoders(given: Field, names: list[str]) -> Iterator[Contestant]:
    missing = None if given.teacher else "needs a teacher, also for its tokenizer"
    model = {"model": str(given.teacher), "names": names}
    files = () if given.teacher is None else tuple(str(path) for path in sorted(given.teacher.glob("*.safetensors")))
    common: dict[str, Any] = {"group": "encoder", "is_slow": True, "missing": missing, "packages": _TORCH_PACKAGES}
    for device in ("cpu", "cuda"):
        suffix, where = ("-gpu", ", GPU") if device == "cuda" else ("", "")
        if device == "cuda" and not given.gpu:
            common = {**common, "missing": NO_GPU}
        for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
            settings = {**model, "dtype": dtype, "max_length": given.teacher_max_length, "device": device}
            yield Contestant(
                name=f"teacher-{short}{suffix}",
                title=f"teacher {short}{where}",
                module="encoders",
                peer="Teacher",
                options=settings,
                files=files,
                **common,
            )
        if device == "cpu":
            yield _onnx({**model, "max_length": given.teacher_max_length}, common)
        if not given.peers:
            continue
        for architecture, title in (("roberta-large", "RoBERTa-Large"), ("distilbert", "DistilBERT")):
            for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
                yield Contestant(
                    name=f"{architecture}-{short}{suffix}",
                    title=f"{title} {short}{where}",
                    module="encoders",
                    peer="Architecture",
                    options={
                        **model,
                        "architecture": architecture,
                        "dtype": dtype,
                        "max_length": 512,
                        "device": device,
                    },
                    has_weights=False,
                    **common,
                )


def _onnx(options: dict[str, Any], common: dict[str, Any]) -> Contestant:
    return Contestant(
        name="teacher-onnx-int8",
        title="teacher, ONNX Runtime int8",
        module="onnx_encoder",
        peer="OnnxTeacher",
        options=options,
        is_prepared=True,
        **(common | {"packages": ("onnxruntime", "onnx", "transformers", "numpy")}),
    )


def _lexical(given: Field, config: dict[str, Any], names: list[str]) -> Iterator[Contestant]:
    train = {"train": str(given.train)}
    without_texts = None if given.train else "needs labelled training texts"
    common: dict[str, Any] = {"group": "lexical", "is_prepared": True, "missing": without_texts}
    for package, environment in (("fasttext-numpy2", None), ("fasttext-turbo", "fasttext-turbo")):
        prefix = "fasttext" if environment is None else package
        for ngrams, dim in ((4, 64), (2, 10)):
            yield Contestant(
                name=f"{prefix}-{ngrams}-{dim}",
                title=f"{package} {ngrams}/{dim}",
                module="fasttext_peer",
                peer="FastText",
                options={**train, "word_ngrams": ngrams, "dim": dim},
                packages=(package, "numpy"),
                environment=environment,
                **common,
            )
    encoder = given.encoder or given.teacher
    yield Contestant(
        name="model2vec",
        title="model2vec",
        module="model2vec_peer",
        peer="Model2Vec",
        options={**train, "encoder": str(encoder)},
        packages=("model2vec", "tokenizers", "numpy"),
        **(common | ({} if encoder else {"missing": "needs an encoder to make a static model of"})),
    )
    yield Contestant(
        name="luxical",
        title="luxical",
        module="luxical_peer",
        peer="Luxical",
        options={**train, "tokenizer": str(encoder), "names": names},
        packages=("luxical", "arrow-tokenize", "numba", "numpy"),
        environment="luxical",
        has_weights=False,
        **(common | ({} if encoder else {"missing": "needs a tokenizer"})),
    )
    yield Contestant(
        name="tfidf",
        title="TF-IDF and logistic regression",
        module="counts",
        peer="TfidfRegression",
        options=train,
        packages=("scikit-learn", "numpy"),
        **common,
    )
    yield Contestant(
        name="count-dan",
        title="CountVectorizer and DAN",
        module="counts",
        peer="CountDan",
        options={**train, "names": names, "num_ngrams": config["vocab_size"] - 1, "width": config["embedding_size"]},
        packages=("scikit-learn", "torch", "numpy"),
        has_weights=False,
        **common,
    )
