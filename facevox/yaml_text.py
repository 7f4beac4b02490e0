"""YAML of strangers: plain values, without numbers that take minutes to read or cannot be shown."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaml import SafeLoader, ScalarNode

MOST_DIGITS = 1000  # of a number; Python refuses to show more than 4300, and reads 1:2:3:… ever slower


def parse_yaml(text: str) -> object:
    """The value of a YAML text.

    Raises:
        ValueError: It is none, or has a number of more than `MOST_DIGITS` characters.
    """
    import yaml  # not before the arguments are read, which `--help` ends

    class Loader(yaml.SafeLoader):
        """Builds plain values."""

    def number(loader: "SafeLoader", node: "ScalarNode") -> object:
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
        is_whole = node.tag.endswith(":int")
        return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", number)
    try:
        return Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(error) from None
