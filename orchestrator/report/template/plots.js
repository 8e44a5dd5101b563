// The plots: drawn when they are scrolled to, in the colours of light, dark or paper.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("data-figures").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const mixed = (from, to, share) => {
    const part = (text, i) => parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16);
    return `rgb(${[0, 1, 2].map((i) => Math.round(part(from, i) + share * (part(to, i) - part(from, i)))).join()})`;
  };

  const theme = () => {
    const [weak, middle, strong] = ["weak", "middle", "strong"].map(colour);
    const shade = (place) => (place < 0.5 ? mixed(weak, middle, 2 * place) : mixed(middle, strong, 2 * place - 1));
    const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true, exponentformat: "e" };
    const layout = {
      font: { color: colour("ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: [colour("ink")],
      xaxis: axis, yaxis: axis, margin: { l: 56, r: 16, t: 24, b: 48 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { bgcolor: colour("panel"), font: { color: colour("ink") } },
      annotationdefaults: { bgcolor: colour("back") },
      shapedefaults: { line: { color: colour("faint") } },
    };
    return { shade, scale: [[0, weak], [0.5, middle], [1, strong]], template: { layout } };
  };

  // A figure of the data in the page's colours.
  const themed = ({ data, layout }, { shade, scale, template }) => ({
    data: data.map((trace) => {
      if (typeof trace.meta === "number") return { ...trace, line: { ...trace.line, color: shade(trace.meta) } };
      if (trace.type === "contour") return { ...trace, colorscale: scale };
      if (trace.marker?.colorscale) return { ...trace, marker: { ...trace.marker, colorscale: scale } };
      return trace;
    }),
    layout: { ...layout, template },
  });

  const draw = (place) => {
    const { data, layout } = themed(figures[place.dataset.figure], theme());
    place.dataset.drawn = place.dataset.figure;
    return Plotly.newPlot(place, data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
  };

  const places = [...document.querySelectorAll("[data-figure]")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  places.forEach((place) => (place.dataset.figure === "curves" ? draw(place) : seen.observe(place)));

  for (const choice of document.querySelectorAll("[data-shows]")) {
    choice.addEventListener("change", () => {
      const place = document.getElementById(choice.dataset.shows);
      place.dataset.figure = choice.value;
      draw(place);
    });
  }

  const again = () => places.filter((place) => place.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.printing = "";
    places.forEach(draw);
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    again();
  });
  document.documentElement.dataset.plots = "ready";
})();
