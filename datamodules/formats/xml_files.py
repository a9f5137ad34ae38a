"""XML files without document type, entities and namespaces."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from datamodules.core.errors import LayoutError
from datamodules.formats.cells import number, shown
from datamodules.formats.text_files import label, read_bytes

_DEEPEST = 100  # elements within one another


class _Builder(ElementTree.TreeBuilder):
    """Builds elements by their names without namespace."""

    depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which can define entities")

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"elements are nested more than {_DEEPEST} deep")
        return super().start(_local(tag), {_local(name): text for name, text in attrs.items()})

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(_local(tag))


def parse_xml(where: str, data: bytes) -> ElementTree.Element:
    """The root element of an XML text; names of elements and attributes lose their namespace."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise LayoutError(f"{where}: not a readable XML file ({shown(error)})") from error
    return root


def read_xml(root: Path, path: Path) -> ElementTree.Element:
    """The root element of an XML file, see `parse_xml`."""
    return parse_xml(label(root, path), read_bytes(root, path))


def attribute(where: str, element: ElementTree.Element, name: str) -> float:
    """The finite number in an attribute."""
    try:
        return number(element.get(name, "").strip())
    except ValueError as error:
        raise LayoutError(f"{where}: {name} {error}") from error


def _local(name: str) -> str:
    return name.rpartition("}")[2]
