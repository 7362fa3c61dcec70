"""A panel of the console: a frame with a title, a heading, and rows of which one is selected.

Knows nothing of what the rows mean: see ``broker/operator/panels.py``. Draws only the rows that are visible, so the
number of rows does not matter.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.widget import Widget

from msd.broker.operator import colours
from msd.broker.views.columns import text_width
from msd.broker.views.panel_layout import Place
from msd.broker.views.panel_text import Line, PanelText

#: Columns that the corners and margins of a title take.
TITLE_MARGIN = 6
CSS = f"""
PanelView {{ position: absolute; color: {colours.TEXT}; background: {colours.BACKGROUND};
             border-top: solid {colours.FRAME}; border-title-color: {colours.BRIGHT};
             border-title-background: {colours.BACKGROUND}; }}
PanelView:focus {{ border-top: heavy {colours.FOCUSED_FRAME}; border-title-style: bold; }}
PanelView.-framed {{ border: round {colours.FRAME}; }}
PanelView.-framed:focus {{ border: heavy {colours.FOCUSED_FRAME}; }}
"""


class PanelView(Widget):
    """A panel. ``set_text`` gives it contents, and ``show`` a place."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move_page(-1)", show=False),
        Binding("pagedown", "move_page(1)", show=False),
        Binding("home,g", "move_to_end(True)", show=False),
        Binding("end,G", "move_to_end(False)", show=False),
    ]

    #: True if a row that is selected because it is the first one stays selected when another one becomes the first.
    #: Otherwise the first row, whichever that is, is selected until the operator selects another one.
    keeps_row: ClassVar[bool] = False

    class Moved(Message):
        """Another row is selected."""

    def __init__(self, *, can_focus: bool = True) -> None:
        super().__init__()
        self.can_focus = can_focus
        self._text = PanelText([""], [])
        self._is_changed = True
        #: The row that the operator has selected; None as long as it is the first one.
        self._chosen: Hashable = None
        #: The row that was selected last, if the panel keeps it.
        self._kept: Hashable = None
        #: The row that the screen shows as selected; None if it shows none.
        self._shown: Hashable = None
        #: The index of the first visible line.
        self._top = 0
        self._place = Place(0, 0, 0, 0)
        #: The number of lines for rows.
        self._height = 0

    @property
    def selected(self) -> Hashable:
        """The key of the selected row; None if there is none."""
        keys = self._keys
        return next((key for key in (self._chosen, self._kept, *keys[:1]) if key in keys), None)

    @property
    def shown(self) -> Hashable:
        """The key of the row that the operator sees as selected: a key that is pressed means this one. New contents
        may lack this row, or select another one, before the screen shows that.
        """
        return self._shown

    def set_text(self, text: PanelText) -> None:
        """Gives the panel new contents, which ``show`` draws."""
        self._is_changed |= text != self._text
        self._text = text
        if self.keeps_row:
            self._kept = self.selected

    def show(self, place: Place, *, framed: bool) -> None:
        """Shows the panel at ``place``."""
        self._is_changed |= not self.display
        self.display = True
        self.set_class(framed, "-framed")
        if place != self._place:
            self._place, self._is_changed = place, True
            self.styles.offset = (place.x, place.y)
            self.styles.width, self.styles.height = place.width, place.height
        if self._is_changed:
            self._is_changed = False
            self._height = max(0, place.height - (2 if framed else 1) - bool(self._text.heading))
            self._scroll()

    def hide(self) -> None:
        self.display = False
        self._shown = None

    def render(self) -> Content:
        width, selected = self.size.width, self.selected if self.can_focus else None
        self._shown = selected
        text = self._text
        parts = [Content.styled(text.heading[:width], f"{colours.HEADING} underline")] if text.heading else []
        is_selected = False
        for line in text.lines[self._top : self._top + self._height]:
            is_selected = line.key == selected if line.key is not None else is_selected
            parts.append(self._drawn(line, width, is_selected=is_selected and selected is not None))
        return Content("\n").join(parts)

    def action_move(self, count: int) -> None:
        keys = self._keys
        if keys:
            index = keys.index(self.selected) + count
            self._choose(keys[min(max(index, 0), len(keys) - 1)])

    def action_move_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self._height - 1))

    def action_move_to_end(self, first: bool) -> None:
        if keys := self._keys:
            self._choose(None if first else keys[-1])

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.action_move(-1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.action_move(1)

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        line = offset.y - bool(self._text.heading) if offset is not None else -1
        index = self._top + line
        keys = [line.key for line in self._text.lines[: index + 1] if line.key is not None]
        if line >= 0 and index < len(self._text.lines) and keys:
            self._choose(keys[-1])

    @property
    def _keys(self) -> list[Hashable]:
        return [line.key for line in self._text.lines if line.key is not None]

    def _choose(self, key: Hashable) -> None:
        self._chosen, self._kept = key, None
        self._shown = self.selected
        self._scroll()
        self.post_message(self.Moved())

    def _scroll(self) -> None:
        """Makes the selected row visible, and says in the title which rows are."""
        lines, height = self._text.lines, self._height
        starts = [index for index, line in enumerate(lines) if line.key is not None]
        row = self._keys.index(self.selected) if starts and self.can_focus else 0
        first = starts[row] if row else 0
        last = starts[row + 1] - 1 if row + 1 < len(starts) else len(lines) - 1
        self._top = max(0, min(max(self._top, last - height + 1), first, len(lines) - height))
        titles = list(self._text.titles)
        if len(lines) > height and starts:
            shown = [number for number, start in enumerate(starts, 1) if self._top <= start < self._top + height]
            first, last = min(shown, default=row + 1), max(shown, default=row + 1)
            rows = f"{f'row {first}' if first == last else f'rows {first} to {last}'} of {len(starts)}"
            titles = [*(f"{title}, {rows}" for title in titles), *titles]
        self.border_title = Content(PanelText(titles, []).title(self._place.width - TITLE_MARGIN))
        self.refresh()

    def _drawn(self, line: Line, width: int, *, is_selected: bool) -> Content:
        text, style = line.text, colours.TONES[line.tone]
        if is_selected:
            text = f"›{text[1:]}" if line.key is not None else text
            if self.has_focus:
                text += " " * (width - text_width(text))
                style = f"bold {style} on {colours.SELECTED}"
        return Content.styled(text, style)
