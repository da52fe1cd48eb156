"""Pages of reports, as a test reads them."""

import html.parser


class Page(html.parser.HTMLParser):
    """A page's sections, images, references, text, and prototypes' colours."""

    _VOID = {"meta", "img", "br", "hr", "path", "use", "rect", "stop", "circle"}

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        self.sections, self.images, self.references, self.text = [], [], [], ""
        self.open, self.chips = [], set()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "section":
            self.sections.append(attrs["id"])
        if tag == "img":
            self.images.append(attrs)
        names = ("src", "href", "xlink:href", "action", "data")
        self.references += [attrs[name] for name in names if name in attrs]
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in self._VOID:
            self.open.append((tag, attrs))

    def handle_endtag(self, tag):
        if tag not in self._VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data
        if len(self.open) > 1 and self.open[-2][1].get("class") == "chip":
            style = self.open[-1][1].get("style", "")
            if self.open[-1][0] == "b":
                self.chips.add((int(data), style.partition(";")[0]))
