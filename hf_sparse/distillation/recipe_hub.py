"""The part of a recipe about the student's place on the Hub, and what its model card says that no run can measure."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class HubRecipe:
    """Where the student goes, and facts for its card.

    Attributes:
        model_id: Repository that `push_to_hub` pushes to, `name` or `organisation/name`.
        private: Make a repository that others do not see.
        revision: Branch to push to; null is main.
        create_pr: Open a pull request instead of committing.
        max_shard_size: Largest file of weights; no tensor is split, and a block of the table is one.
        license: Licence of the student; null takes the teacher's, where its card says one.
        language: Languages of the texts, such as [en].
        datasets: Hub ids of the data sets that local files come from; those that the recipe names are added.
        examples: Texts, for pairs lists of two, that the page of the model on the Hub offers to try. Sentences of your
            own: they are published.
    """

    model_id: str | None = None
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    max_shard_size: str = "5GB"
    license: str | None = None
    language: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    examples: list[str | list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for example in self.examples:
            if isinstance(example, list) and len(example) != 2:
                raise ValueError(f"hub.examples holds {example}, but an example is a text or a pair of two texts")
