"""The recipe: everything a run of `recipes/distill.py` can be told, as nested dataclasses.

A YAML file fills them (strictly: an unknown key is an error), the command line overrides any key with a dotted name
(`--distil.epochs 6`). Defaults are what measured best on validation data; the paper's own values stand in the docs.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from hf_sparse.distillation.recipe_checks import ABOVE_ZERO, BELOW_ONE, check_bounds, check_recipe
from hf_sparse.distillation.recipe_data import DataRecipe
from hf_sparse.distillation.recipe_hub import HubRecipe

# N-grams of a text, on average, up to which a maximum is better than a mean.
_SHORT_TEXT_NGRAMS: Final = 100

PoolingMode = Literal["mean", "sum", "max", "attentive"]
BaselineName = Literal["majority", "tfidf", "nb_lr", "fasttext", "model2vec"]
StageName = Literal[
    "texts",
    "vocabulary",
    "teacher",
    "label",
    "ensemble",
    "distil",
    "fine_tune",
    "from_scratch",
    "baselines",
    "evaluate",
    "save",
]


@dataclass(kw_only=True)
class VocabularyRecipe:
    """The n-grams that get a row.

    Attributes:
        num_ngrams: K, how many n-grams are kept (the paper: 1,000,000).
        max_n: Longest n-gram.
        min_documents: Keep only n-grams that occur in at least so many texts. Above 1 it keeps the wording of single
            texts out of the published vocabulary.
        word_rule: "words", "sklearn" or "hf:<repo or folder>".
        clean: "html", "none", or null for the word rule's own default.
        include_train: Count D_train; false takes the vocabulary from C alone: the privacy setting, which allows no
            training of the student on D_train either.
        memory: How much memory the counting may use, such as 2GB; the rest goes to files. null keeps all in memory.
        file: Vocabulary that `hf-sparse vocabulary` has written, file or folder; nothing is counted then.
    """

    num_ngrams: int = 1_000_000
    max_n: int = 4
    min_documents: int = 2
    word_rule: str = "words"
    clean: Literal["html", "none"] | None = None
    include_train: bool = True
    memory: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        check_bounds("vocabulary", self, num_ngrams=(1, math.inf), max_n=(1, math.inf), min_documents=(1, math.inf))


@dataclass(kw_only=True)
class TeacherRecipe:
    """The transformer that is distilled.

    Attributes:
        model: Hub id or folder. A sequence classifier is used as it is; an encoder without a head is fine-tuned.
        base_model: Hub id that the model card names as the teacher; null means `model` unless that is a folder.
        revision: Revision on the Hub.
        trust_remote_code: Run code that the teacher's repo ships.
        max_length: Tokens read of a text.
        fine_tune: "all" weights or only the "head" of an encoder without a head; null means "all".
        epochs: Passes over D_train.
        batch_size: Texts a step.
        lr: Peak learning rate; null means 5e-5 for all weights and 1e-3 for the head.
        weight_decay: AdamW's.
        warmup_ratio: Share of the steps in which the learning rate rises.
        ngram_expert: Distil the weighted sum of the teacher and a linear classifier of D_train's n-grams.
        ngram_expert_c: Inverse strength of the penalty on that classifier's weights.
    """

    model: str
    base_model: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_length: int = 256
    fine_tune: Literal["all", "head"] | None = None
    epochs: int = 3
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    ngram_expert: bool = False
    ngram_expert_c: float = 0.3

    def __post_init__(self) -> None:
        check_bounds(
            "teacher",
            self,
            ngram_expert_c=(ABOVE_ZERO, math.inf),
            max_length=(1, math.inf),
            epochs=(1, math.inf),
            batch_size=(1, math.inf),
            lr=(ABOVE_ZERO, math.inf),
            weight_decay=(0, math.inf),
            warmup_ratio=(0, 1),
        )


@dataclass(kw_only=True)
class LabelRecipe:
    """How the teacher labels.

    Attributes:
        tokens_per_batch: Budget of padded tokens in a batch of texts of similar length.
        dtype: Precision of the teacher; "auto" is bfloat16 where the processor computes in it, else float32.
        top_k: Keep so many logits of a text, and the weight of the rest, where one label of over twice as many classes
            is right; null keeps all.
    """

    tokens_per_batch: int = 8192
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    top_k: int | None = 64

    def __post_init__(self) -> None:
        check_bounds("label", self, tokens_per_batch=(1, math.inf), top_k=(1, math.inf))


@dataclass(kw_only=True)
class StudentRecipe:
    """The shape of the student (see `SparseNgramConfig`), and how its table begins.

    Attributes:
        pooling: How the rows of a text become one vector. "auto" is a maximum for single texts of at most
            100 n-grams on average, as validation texts have them (some 40 words): in short texts one n-gram decides,
            and a mean drowns it; for longer ones, and for pairs, it is their mean.
        pair_bags: What is compared of pairs: the two texts ("sides", as the paper does), or what only one of them has
            and what both have ("overlap").
        alignment_size: Columns of a row by which the words that only one text of a pair has are aligned with those
            that only the other has (`overlap` alone does it); 0: none. null is 64, at most a quarter of the columns.
        initial_rows: "random", or "naive_bayes": small random values and a direction for each label, as far as the
            n-gram speaks for it by the texts that are trained on. "auto" is naive_bayes but for pairs, where what
            matters is how the sides differ, and for regressions.
        seed: Of the student's trainings; null is the run's. Another one repeats them with the same texts and teacher.
        naive_bayes_scale: How long the directions of a text's n-grams are on average together.
        subwords: While it is trained, words share values by the character n-grams that they are spelt with; the
            finished student has them in its rows.
    """

    embedding_size: int = 256
    hidden_sizes: list[int] | None = None
    pooling: Literal["auto"] | PoolingMode = "auto"
    activation: Literal["relu", "tanh"] = "relu"
    hidden_dropout: float = 0.1
    block_rows: int | None = None  # null: as many as fit into 512 MiB, at most 1,048,576
    pair_bags: Literal["sides", "overlap"] = "overlap"
    alignment_size: int | None = None
    seed: int | None = None
    initial_rows: Literal["auto", "random", "naive_bayes"] = "auto"
    naive_bayes_scale: float = 0.5
    subwords: bool = True

    def __post_init__(self) -> None:
        check_bounds(
            "student",
            self,
            embedding_size=(1, math.inf),
            hidden_dropout=(0, BELOW_ONE),
            block_rows=(1, math.inf),
            seed=(0, math.inf),
            naive_bayes_scale=(0, math.inf),
            alignment_size=(0, self.embedding_size - 1),
        )
        if any(width < 1 for width in self.hidden_sizes or []):
            raise ValueError(f"student.hidden_sizes is {self.hidden_sizes}, but each width must be at least 1")
        if self.alignment_size and self.pair_bags != "overlap":
            raise ValueError(
                f"student.alignment_size is {self.alignment_size}, but student.pair_bags is {self.pair_bags}, where "
                "nothing is aligned; set it to 0, or pair_bags to overlap"
            )

    def pooling_of(self, num_ngrams: float, *, are_pairs: bool) -> PoolingMode:
        """Return how texts of so many n-grams on average are pooled."""
        if self.pooling != "auto":
            return self.pooling
        return "max" if num_ngrams <= _SHORT_TEXT_NGRAMS and not are_pairs else "mean"

    @property
    def columns_to_align(self) -> int:
        """Columns by which words of pairs are aligned."""
        if self.pair_bags != "overlap":
            return 0
        return min(64, self.embedding_size // 4) if self.alignment_size is None else self.alignment_size


@dataclass(kw_only=True)
class TrainingRecipe:
    """One training of the student: distillation, fine-tuning or from scratch.

    Attributes:
        epochs: Passes over the texts; 0 skips the stage.
        batch_size: Texts a step, over all processes.
        accumulation_steps: Parts of a batch that each process computes one after the other, to save memory.
        lr: Peak learning rate of the table's rows.
        head_lr: Peak learning rate of everything else (AdamW).
        weight_decay: AdamW's; the table has none.
        warmup_ratio: Share of the steps in which the learning rates rise; then they fall linearly to zero.
        optimizer: Optimiser of the table's rows.
        ngram_dropout: Probability with which an n-gram of a text is left out; null is 0.1, but 0 where a maximum is
            distilled, which may hang on a single n-gram.
        max_grad_norm: Bound on the norm of the gradient of everything but the table; null for none.
        temperature: Of teacher and student in the distillation loss.
        gold_weight: Weight of the gold label against the teacher's on labelled texts: 0 is distillation alone,
            1 gold labels alone.
        max_length: N-grams read of a text; null reads all.
        evals_per_epoch: How often validation data is scored.
        checkpoint_minutes: Time between checkpoints.
    """

    stage_name: ClassVar[str] = "training"

    epochs: int = 4
    batch_size: int = 256
    accumulation_steps: int = 1
    lr: float = 0.05
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_ratio: float = 0.02
    optimizer: Literal["rowwise_adagrad", "lazy_adam"] = "rowwise_adagrad"
    ngram_dropout: float | None = None
    max_grad_norm: float | None = 1.0
    temperature: float = 1.0
    gold_weight: float = 0.0
    max_length: int | None = None
    evals_per_epoch: int = 2
    checkpoint_minutes: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(
            self.stage_name,
            self,
            epochs=(0, math.inf),
            batch_size=(1, math.inf),
            accumulation_steps=(1, math.inf),
            lr=(ABOVE_ZERO, math.inf),
            head_lr=(ABOVE_ZERO, math.inf),
            weight_decay=(0, math.inf),
            warmup_ratio=(0, 1),
            ngram_dropout=(0, BELOW_ONE),
            max_grad_norm=(ABOVE_ZERO, math.inf),
            temperature=(ABOVE_ZERO, math.inf),
            gold_weight=(0, 1),
            max_length=(1, math.inf),
            evals_per_epoch=(1, math.inf),
            checkpoint_minutes=(0, math.inf),
        )

    def dropout_of(self, pooling: str) -> float:
        """Return the n-gram dropout of a student that pools in this way."""
        if self.ngram_dropout is not None:
            return self.ngram_dropout
        return 0.0 if self.stage_name == "distil" and pooling == "max" else 0.1


@dataclass(kw_only=True)
class DistilRecipe(TrainingRecipe):
    """Distillation on C and D_train.

    Attributes:
        include_train: Distil on D_train too; false distils on the corpus alone, as in the privacy setting, or for
            another domain on whose D_train the student is fine-tuned afterwards.
        corpus_texts: Read so many texts of the corpus, its first ones, and after them of those that were made
            (`data.augmentation`); null reads all.
    """

    stage_name = "distil"

    include_train: bool = True
    corpus_texts: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("distil", self, corpus_texts=(1, math.inf))


@dataclass(kw_only=True)
class FineTuneRecipe(TrainingRecipe):
    """Fine-tuning of the distilled student on D_train, kept only if it is better on validation data.

    Attributes:
        average: Average the weights before and after, if that is better on validation texts.
    """

    stage_name = "fine_tune"

    epochs: int = 3
    gold_weight: float = 1.0
    average: bool = True


@dataclass(kw_only=True)
class FromScratchRecipe(TrainingRecipe):
    """A student of the same shape that never sees the teacher, for comparison; off unless it has epochs."""

    stage_name = "from_scratch"

    epochs: int = 0
    gold_weight: float = 1.0


@dataclass(kw_only=True)
class BaselinesRecipe:
    """Classifiers without a transformer, trained on D_train for comparison.

    Attributes:
        names: Which: majority, tfidf, nb_lr, fasttext, model2vec. Settings are chosen on validation texts.
        encoder: Folder or Hub id of the encoder that model2vec takes its word vectors from; null is the teacher's.
    """

    names: list[BaselineName] = field(default_factory=list)
    encoder: str | None = None


@dataclass(kw_only=True)
class EvaluateRecipe:
    """The report.

    Attributes:
        speed_seconds: Time spent on measuring texts per second of teacher and student each; 0 leaves it out.
        batch_size: Texts in a batch of the student when it is timed.
    """

    speed_seconds: float = 15.0
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_bounds("evaluate", self, speed_seconds=(0, math.inf), batch_size=(1, math.inf))


@dataclass(kw_only=True)
class Recipe:
    """A whole run.

    Attributes:
        output_dir: Folder of the run; each stage has a folder in it.
        data: The texts.
        teacher: The teacher.
        vocabulary: The n-grams.
        label: How the teacher labels.
        student: The student's shape.
        distil: Distillation.
        fine_tune: Fine-tuning afterwards.
        from_scratch: The comparison without a teacher.
        baselines: Classifiers to compare with.
        evaluate: The report.
        seed: Of every random choice.
        table: How several processes hold the student's table: "split" by columns, "replicated", or "auto", which
            splits it where each process gets at least 8 columns. The student is the same.
        stages: Run only these; null runs all that are not there yet.
        num_processes: Fail unless so many processes were launched; null takes any number.
        hub: The student's repository and card.
        push_to_hub: Push the finished student to `hub.model_id`.
        trackers: Names of Accelerate trackers (`tensorboard`, `wandb`, ...); `metrics.jsonl` is always written.
    """

    output_dir: str
    data: DataRecipe
    teacher: TeacherRecipe
    vocabulary: VocabularyRecipe = field(default_factory=VocabularyRecipe)
    label: LabelRecipe = field(default_factory=LabelRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    distil: DistilRecipe = field(default_factory=DistilRecipe)
    fine_tune: FineTuneRecipe = field(default_factory=FineTuneRecipe)
    from_scratch: FromScratchRecipe = field(default_factory=FromScratchRecipe)
    baselines: BaselinesRecipe = field(default_factory=BaselinesRecipe)
    evaluate: EvaluateRecipe = field(default_factory=EvaluateRecipe)
    seed: int = 0
    stages: list[StageName] | None = None
    num_processes: int | None = None
    table: Literal["auto", "split", "replicated"] = "auto"
    hub: HubRecipe = field(default_factory=HubRecipe)
    push_to_hub: bool = False
    trackers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_bounds("", self, seed=(0, math.inf), num_processes=(1, math.inf))
        for training in (self.distil, self.fine_tune, self.from_scratch):
            if training is not self.distil or self.student.pooling != "auto":  # else the texts decide
                training.ngram_dropout = training.dropout_of(self.student.pooling)
        check_recipe(self)  # A public method of this class would be a subcommand of the command line.
