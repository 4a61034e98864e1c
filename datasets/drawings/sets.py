"""Sets of emoji drawings: npm package, version, integrity, designer, licence and attribution."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TARBALLS: Final = Path(".cache/drawings")
"""Default folder of the tarballs."""


@dataclass(frozen=True)
class Package:
    """A pinned npm package.

    Args:
        integrity: base64 of the SHA-512 of the tarball, as npm's lock files have it.
        licence: SPDX identifier.
        author: who is to be named, and `source` where the originals are published.
    """

    name: str
    version: str
    integrity: str
    licence: str
    author: str
    source: str

    @property
    def file_name(self) -> str:
        """Name of the tarball that `npm pack` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class DrawingSet:
    """The drawings of one designer in one style.

    Args:
        designer: sets that redraw the same shapes share one, and are held out together.
        words: the style in captions.
        has_color: whether its drawings are more than black lines and areas.
    """

    package: Package
    designer: str
    words: str
    has_color: bool = True


_GOOGLE = ("Apache-2.0", "Google Inc., Noto Emoji", "github.com/googlefonts/noto-emoji")
_MOZILLA = ("Apache-2.0", "Mozilla, FxEmojis", "github.com/mozilla/fxemoji")
_MICROSOFT = ("MIT", "Microsoft Corporation, Fluent Emoji", "github.com/microsoft/fluentui-emoji")
_TWITTER = ("CC-BY-4.0", "Twitter, Inc. and other contributors, Twemoji", "github.com/jdecked/twemoji")
_EMOJIONE = ("CC-BY-4.0", "EmojiOne, version 2", "github.com/EmojiTwo/emojitwo")

SETS: Final[dict[str, DrawingSet]] = {
    "noto": DrawingSet(
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
            *_GOOGLE,
        ),
        "noto",
        "noto",
    ),
    "noto_v1": DrawingSet(
        Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
            *_GOOGLE,
        ),
        "noto_v1",
        "old noto",
    ),
    "fxemoji": DrawingSet(
        Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
            *_MOZILLA,
        ),
        "fxemoji",
        "fxemoji",
    ),
    "fluent": DrawingSet(
        Package(
            "@iconify-json/fluent-emoji",
            "1.2.7",
            "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
            *_MICROSOFT,
        ),
        "fluent",
        "3d fluent",
    ),
    "fluent_flat": DrawingSet(
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
            *_MICROSOFT,
        ),
        "fluent",
        "flat fluent",
    ),
    "fluent_line": DrawingSet(
        Package(
            "@iconify-json/fluent-emoji-high-contrast",
            "1.2.6",
            "esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
            *_MICROSOFT,
        ),
        "fluent",
        "fluent line",
        has_color=False,
    ),
    "twemoji": DrawingSet(
        Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
            *_TWITTER,
        ),
        "twemoji",
        "twemoji",
    ),
    "emojione": DrawingSet(
        Package(
            "@iconify-json/emojione",
            "1.2.3",
            "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
            *_EMOJIONE,
        ),
        "emojione",
        "emojione",
    ),
    "emojione_line": DrawingSet(
        Package(
            "@iconify-json/emojione-monotone",
            "1.2.1",
            "cZSNcPsuiAD6HCzCh/2dYKGh3pNI0jJlxBxQWfC33cQsPtqYZqulGBvlkThXYNvDl8VxgVHT9u+izyX/yeEIkA==",
            *_EMOJIONE,
        ),
        "emojione",
        "emojione line",
        has_color=False,
    ),
}
NAMES: Final = Package(
    "emojibase-data",
    "17.0.0",
    "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "MIT",
    "Miles Johnson, Emojibase",
    "github.com/milesj/emojibase",
)
PEOPLE: Final = Package(
    "@dicebear/styles",
    "10.6.0",
    "KhxbEVI+z8TaenX58+ZhIRFBt7adggu/F+8g6ZYLu43H2/lgLuWA3Kg8vHBrCVWdfTTTt1p2wUhQomIkkypTuQ==",
    "CC0-1.0",
    "Pablo Stanley, Open Peeps, as DiceBear's parts",
    "openpeeps.com",
)
"""Parts of people; other styles of the package have other licences."""


_MIT: Final = """\
MIT License. Copyright (c) of the authors named. Permission is hereby granted, free of charge, to any person obtaining a
copy of this software and associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies
of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:
The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT
OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def notice(keys: Collection[str] = SETS) -> str:
    """Attribution of sets, as a NOTICE file next to their drawings or to models trained on them."""
    packages = [*(one.package for key, one in SETS.items() if key in keys), NAMES]
    rows = [f"{p.name} {p.version}: {p.author} ({p.source}), {p.licence}" for p in packages]
    head = "Names and drawings of emoji are from these npm packages; Iconify optimized the drawings' SVG."
    licences = "Apache-2.0: see LICENSE at the root of the repository. CC-BY-4.0: creativecommons.org/licenses/by/4.0"
    return "\n".join([head, "", *rows, "", licences, "", _MIT])
