package chart

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// What a picture measures, in pixels. It is as wide as GitHub shows it.
const (
	width     = 830.0
	padding   = 22.0
	titleRoom = 50.0 // above a plot
	tickRoom  = 24.0 // below it
	nameRoom  = 20.0 // below the last one
	leader    = 24.0 // from the end of a line to its name
	lineRoom  = 18.0 // for each name
	fontSize  = 12.0
)

// fewPoints is up to how many points are shown one by one.
const fewPoints = 12

// widthOf is how wide a text is in the widest of the usual fonts.
func widthOf(text string) float64 {
	ems := 0.0
	for _, letter := range text {
		switch {
		case strings.ContainsRune(" ijlftr.,:;'/|-()", letter):
			ems += 0.41
		case strings.ContainsRune("mwMW%", letter):
			ems++
		default:
			ems += 0.64
		}
	}
	return ems * fontSize
}

// SVG draws the picture.
func (p Picture) SVG() []byte {
	var d drawing
	d.left, d.right = p.sides()
	d.x = p.scaleX(d.left, d.right)
	top := padding - 12
	for i, panel := range p.Panels {
		top += titleRoom
		if i == 0 {
			d.nameBand(p.Band, top)
		}
		d.panel(p, panel, top)
		top += panel.Height + tickRoom
		if i == len(p.Panels)-1 {
			top += nameRoom
			d.text((d.left+d.right)/2, top-6, "middle", "", p.X.Name)
		}
	}
	height := top + padding - 10
	var svg drawing
	svg.add(`<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%.0f" height="%.0f"`+
		` viewBox="0 0 %.0[1]f %.0[2]f">`, width, height)
	svg.add("<title>%s</title>\n<style>\n%s</style>", html.EscapeString(p.Alt), styleSheet())
	svg.add(`<rect class="card" x=".5" y=".5" width="%.0f" height="%.0f" rx="6"/>`, width-1,
		height-1)
	svg.add("%s</svg>", d.String())
	return svg.Bytes()
}

// sides are where the plots begin and end: what is written beside them has its room.
func (p Picture) sides() (left, right float64) {
	var ticks, names float64
	for _, panel := range p.Panels {
		for _, tick := range scaleY(panel.Log, panel.edges(), 0, panel.Height).ticks() {
			ticks = max(ticks, widthOf(Number(tick)))
		}
		for _, line := range panel.Lines {
			if line.Name != "" {
				names = max(names, leader+widthOf(line.Name))
			}
		}
	}
	return padding + ticks + 10, width - padding - names
}

func (p Picture) scaleX(left, right float64) scale {
	s := scale{log: p.X.Log, low: p.X.Ticks[0], high: p.X.Ticks[0], from: left, to: right}
	if s.log {
		s.from, s.to = left+14, right-14 // the first and the last point stand free
	}
	for _, tick := range p.X.Ticks {
		s.low, s.high = min(s.low, tick), max(s.high, tick)
	}
	for _, panel := range p.Panels {
		for _, line := range panel.Lines {
			for _, one := range line.Points {
				s.low, s.high = min(s.low, one.X), max(s.high, one.X)
			}
		}
	}
	return s
}

// drawing is a picture's elements.
type drawing struct {
	bytes.Buffer
	left, right float64 // of every plot
	x           scale
}

// add adds elements.
func (d *drawing) add(format string, values ...any) { fmt.Fprintf(d, format+"\n", values...) }

func (d *drawing) panel(p Picture, panel Panel, top float64) {
	bottom := top + panel.Height
	edges := panel.edges()
	y := scaleY(panel.Log, edges, top, bottom)
	unit := panel.Unit
	if panel.Log {
		unit += " (log scale)"
	}
	d.add(`<text x="%.1f" y="%.1f"><tspan class="title">%s</tspan><tspan dx="10">%s</tspan></text>`,
		padding, top-26, html.EscapeString(panel.Title), html.EscapeString(unit))
	if p.Band != (Band{}) {
		d.shade(p.Band, top, bottom)
	}
	for _, tick := range y.ticks() {
		d.rule("grid", d.left, y.at(tick), d.right, y.at(tick))
		d.text(d.left-10, y.at(tick)+4, "end", "", Number(tick))
	}
	if panel.Stacked {
		d.stack(panel, edges, y)
	} else {
		d.lines(panel, edges, y)
	}
	d.xAxis(p.X, bottom)
}

// nameBand writes above the first plot what the band is.
func (d *drawing) nameBand(b Band, top float64) {
	if b != (Band{}) {
		d.shade(b, top-18, top)
		d.text((d.x.at(b.From)+d.x.at(b.To))/2, top-4, "middle", "", b.Name)
	}
}

func (d *drawing) shade(b Band, top, bottom float64) {
	from, to := d.x.at(b.From), d.x.at(b.To)
	d.add(`<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`,
		from, top, to-from, bottom-top)
}

// xAxis leaves out the labels that have no room beside the one before.
func (d *drawing) xAxis(axis Axis, bottom float64) {
	label := axis.Label
	if label == nil {
		label = Number
	}
	d.rule("axis", d.left, bottom, d.right, bottom)
	written := math.Inf(-1)
	for _, tick := range axis.Ticks {
		x := d.x.at(tick)
		d.rule("axis", x, bottom, x, bottom+5)
		if half := widthOf(label(tick)) / 2; x-half > written+4 {
			d.text(x, bottom+19, "middle", "", label(tick))
			written = x + half
		}
	}
}

// lines draws lines, each with its name at its end.
func (d *drawing) lines(panel Panel, edges [][]Point, y scale) {
	places := make([]float64, len(edges))
	for i, edge := range edges {
		if len(edge) > 0 {
			places[i] = y.at(edge[len(edge)-1].Y)
		}
	}
	names := spread(places, y.to, y.from)
	for i, line := range slices.Backward(panel.Lines) { // the first one on top
		if len(edges[i]) == 0 {
			continue
		}
		d.line(line, edges[i], y)
		last := edges[i][len(edges[i])-1]
		if line.Name == "" {
			continue
		}
		d.add(`<path class="leader s-%s" d="M%.1f %.1fL%.1f %.1f"/>`,
			line.Color, d.x.at(last.X)+6, places[i], d.right+leader-5, names[i])
		d.text(d.right+leader, names[i]+4, "start", "name", line.Name)
	}
}

func (d *drawing) line(line Line, edge []Point, y scale) {
	dash := ""
	if line.Dash != Solid {
		dash = ` stroke-dasharray="` + string(line.Dash) + `"`
	}
	d.add(`<path class="line s-%s"%s d="M%s"/>`, line.Color, dash, d.way(edge, y))
	if len(edge) > fewPoints {
		return
	}
	for _, one := range edge {
		d.add(`<circle class="f-%s" cx="%.1f" cy="%.1f" r="3.5"/>`,
			line.Color, d.x.at(one.X), y.at(one.Y))
	}
}

// stack draws layers, and their names in the same order.
func (d *drawing) stack(panel Panel, edges [][]Point, y scale) {
	floor := []Point{{d.x.low, 0}, {d.x.high, 0}}
	if len(edges[0]) > 0 {
		floor = []Point{{edges[0][0].X, 0}, {edges[0][len(edges[0])-1].X, 0}}
	}
	place := (y.from+y.to)/2 + lineRoom*float64(len(edges)-1)/2
	for i, line := range panel.Lines {
		back := slices.Clone(floor)
		slices.Reverse(back)
		d.add(`<path class="layer f-%s" d="M%sL%sZ"/>`, line.Color, d.way(edges[i], y),
			d.way(back, y))
		floor = edges[i]
		at := place - lineRoom*float64(i)
		d.add(`<rect class="layer f-%s" x="%.1f" y="%.1f" width="12" height="12" rx="2"/>`,
			line.Color, d.right+leader-16, at-6)
		d.text(d.right+leader, at+4, "start", "name", line.Name)
	}
}

// way leads from point to point.
func (d *drawing) way(points []Point, y scale) string {
	steps := make([]string, len(points))
	for i, one := range points {
		steps[i] = fmt.Sprintf("%.1f %.1f", d.x.at(one.X), y.at(one.Y))
	}
	return strings.Join(steps, "L")
}

func (d *drawing) rule(class string, x1, y1, x2, y2 float64) {
	d.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) text(x, y float64, anchor, class, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	d.add(`<text%s x="%.1f" y="%.1f" text-anchor="%s">%s</text>`,
		class, x, y, anchor, html.EscapeString(text))
}

// spread moves places apart until each has the room of a name, and keeps them between top and
// bottom and in their order.
func spread(places []float64, top, bottom float64) []float64 {
	moved := slices.Clone(places)
	order := make([]int, len(places))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(places[a], places[b]) })
	for range 200 { // each round moves neighbours, so that a crowd spreads to both sides
		for i := 1; i < len(order); i++ {
			above, below := &moved[order[i-1]], &moved[order[i]]
			if lacking := lineRoom - (*below - *above); lacking > 0 {
				*above, *below = *above-lacking/2, *below+lacking/2
			}
		}
		for i := range moved {
			moved[i] = min(max(moved[i], top), bottom)
		}
	}
	return moved
}
