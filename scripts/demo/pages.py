"""Pages of the demo: the protocol of a page, and one page per registered method that there are models for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from weftwork.attention_processors.core.method import Method, load, methods
from weftwork.pretrained import ALL, available, shipped
from weftwork.scripts.demo.studio import ImageStudio, Studio

Owned = TypeVar("Owned", bound=Studio)


@dataclass(frozen=True)
class Context:
    """Models that pages may use.

    Args:
        studio: the demo's image pipeline with its adapters, and the queue of all pages.
        folders: by method name its backbone and its trained modules, instead of the shipped ones.
    """

    studio: ImageStudio
    folders: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def models(self, method: Method) -> tuple[str, str] | None:
        """Returns the folders of a method's backbone and trained modules; None where they are not there."""
        if method.name in self.folders:
            return self.folders[method.name]
        names = ((one.backbone, name) for name, one in ALL.items() if one.condition == method.option)
        found = next((one for one in names if set(one) <= set(available())), None)
        return None if found is None else (str(shipped(found[0])), str(shipped(found[1])))


class Tab(ABC):
    """A tab of the demo."""

    title: str
    order: ClassVar[int] = 50
    """Place among the tabs: lower ones come first."""

    @abstractmethod
    def build(self) -> None:
        """Adds the components of the page to the open `gr.Blocks`."""


class Page(Tab):
    """The tab of a method, which names its class as `Method.demo_page`."""

    @classmethod
    @abstractmethod
    def open(cls, method: Method, context: Context) -> Self | None:
        """Returns the page of a method, or None where there are no models for it.

        Raises:
            ValueError: models that cannot be opened.
        """


def attached_name(method: Method, studio: ImageStudio) -> str | None:
    """Returns the name of an attached adapter of the method, preferably its own; None without any."""
    classes = [path.partition(":")[2] for path in method.adapters]
    names = [name for name, one in (studio.pipe.adapters or {}).items() if type(one).__name__ in classes]
    return min(names, key=lambda name: name != method.name, default=None)


class AdapterPage(Page):
    """A page for an adapter that is attached to the demo's image pipeline."""

    def __init__(self, method: Method, studio: ImageStudio, adapter: str) -> None:
        self.method, self.studio, self.adapter = method, studio, adapter

    @classmethod
    def open(cls, method: Method, context: Context) -> Self | None:
        """Returns the page for the method's adapter, or None where none is attached."""
        name = attached_name(method, context.studio)
        return None if name is None else cls(method, context.studio, name)


class PipelinePage(Page, Generic[Owned]):
    """A page for a method with a pipeline of its own."""

    studio_class: type[Owned]

    def __init__(self, studio: Owned) -> None:
        self.studio = studio

    @classmethod
    def open(cls, method: Method, context: Context) -> Self | None:
        models = context.models(method)
        if models is None:
            return None
        backbone, modules = models
        pipe = load(method.pipeline)(backbone, use_safetensors=True).to(context.studio.pipe.device)
        pipe.load_adapter(modules, method.option)
        return cls(cls.studio_class(pipe, Path(backbone).name, context.studio.queue))


def open_pages(context: Context) -> list[Page]:
    """Returns the pages of all registered methods that there are models for, in the order of the tabs."""
    opened = (
        load(method.demo_page or "weftwork.scripts.demo.form:FormPage").open(method, context)
        for method in methods().values()
    )
    return sorted((page for page in opened if page is not None), key=lambda page: page.order)
