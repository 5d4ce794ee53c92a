"""torchinfo's summary, printed in a table that fits a terminal."""

from __future__ import annotations

from torchinfo import ModelStatistics

__all__ = ["LayerTable"]

_WIDTH = 100  # characters
_GAP = 2
_SOME = 12  # characters that a layer's name has at least


class LayerTable(ModelStatistics):  # type: ignore[misc]  # its types are not read
    """torchinfo's ``ModelStatistics``, with numbers in whole and at most 100 columns wide.

    torchinfo's own table has columns of one width, and writes "Units.MEGABYTES" in its last lines.
    """

    def __repr__(self) -> str:
        rows = [("layer", "kernel", "output", "parameters", "MACs"), *self._rows()]
        kernel, output, parameters, macs = (max(len(row[n]) for row in rows) for n in range(1, 5))
        room = max(_SOME, _WIDTH - kernel - output - parameters - macs - 4 * _GAP)
        width = min(room, max(len(row[0]) for row in rows))
        gap = " " * _GAP
        lines = [
            gap.join(
                (
                    f"{_cut(name, width):<{width}}",
                    f"{a:<{kernel}}",
                    f"{b:<{output}}",
                    f"{c:>{parameters}}",
                    f"{d:>{macs}}",
                )
            )
            for name, a, b, c, d in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._totals()])

    __str__ = __repr__

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        rows = []
        for layer in self.summary_list:
            is_deepest = layer.depth == self.formatting.max_depth
            if layer.depth > self.formatting.max_depth:
                continue
            branch = "│ " * (layer.depth - 1) + "├─" if layer.depth else ""
            cells = (layer.num_params_to_str(is_deepest), layer.macs_to_str(is_deepest))
            rows.append(
                (
                    branch + layer.get_layer_name(layer.depth > 0, False),
                    _shape(layer.kernel_size),
                    _shape(layer.output_size),
                    *("" if cell == "--" else cell for cell in cells),
                )
            )
        return rows

    def _totals(self) -> list[str]:
        images = self.input_size[0][0] if self.input_size else 1
        batch = "one image" if images == 1 else f"{images} images"
        megabytes = [
            self.to_megabytes(n)
            for n in (self.total_input, self.total_output_bytes, self.total_param_bytes)
        ]
        given, maps, parameters = megabytes
        frozen = self.total_params - self.trainable_params
        return [
            f"parameters  {self.total_params:,}"
            + (f", {frozen:,} of them frozen" if frozen else ""),
            f"MACs        {self.total_mult_adds:,} for {batch}",
            f"memory      {sum(megabytes):,.2f} MB: input {given:,.2f}, "
            f"maps and their gradients {maps:,.2f}, parameters {parameters:,.2f}",
        ]


def _shape(size: object) -> str:
    """A size as ``3x3``; what is no list is written as it is."""
    if isinstance(size, list | tuple):
        return "x".join(map(str, size))
    return str(size) if size else ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
