package main

import (
	"errors"
	"image/color"
	"maps"
	"math"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	pictureWidth  = 18 * vg.Centimeter
	pictureHeight = 22 * vg.Centimeter
)

// window is how many samples a rate is taken over.
const window = 2

// chart is one part of the picture.
type chart struct {
	title string
	logY  bool
	lines []line
}

type line struct {
	name  string
	value func(before, now sample) float64
}

func rateOf(outcome string) func(before, now sample) float64 {
	return func(before, now sample) float64 {
		return (now.outcomes[outcome] - before.outcomes[outcome]) / (now.at - before.at).Seconds()
	}
}

func latency(quantile float64) func(before, now sample) float64 {
	return func(before, now sample) float64 { return 1000 * quantileOf(quantile, before.calls, now.calls) }
}

func age(quantile float64) func(before, now sample) float64 {
	return func(before, now sample) float64 { return quantileOf(quantile, before.ages, now.ages) }
}

var charts = []chart{
	{title: "Values a second, by outcome", lines: []line{{"cache", rateOf("cache")}, {"stale", rateOf("stale")}}},
	{title: "Those that wait for Vault or are refused, a second", lines: []line{{"vault", rateOf("vault")}, {"error", rateOf("error")}}},
	{title: "What workers wait for, ms", logY: true, lines: []line{{"p50", latency(0.5)}, {"p99", latency(0.99)}}},
	{title: "Age of the answered values, s", lines: []line{{"p50", age(0.5)}, {"p99", age(0.99)},
		{"since Vault's last answer", func(_, now sample) float64 { return now.silence }}}},
}

// quantileOf is what Prometheus's histogram_quantile says of the time between two samples; NaN when nothing happened.
func quantileOf(quantile float64, before, now histogram) float64 {
	bounds := slices.Sorted(maps.Keys(now))
	if len(bounds) == 0 {
		return math.NaN()
	}
	all := now[math.Inf(1)] - before[math.Inf(1)]
	below, from := 0.0, 0.0
	for _, bound := range bounds {
		upTo := now[bound] - before[bound]
		if all > 0 && upTo >= quantile*all {
			if math.IsInf(bound, 1) {
				return from
			}
			return from + (bound-from)*(quantile*all-below)/(upTo-below)
		}
		below, from = upTo, bound
	}
	return math.NaN()
}

// drawPicture draws the charts below each other.
func drawPicture(file string, samples []sample) error {
	canvas := vgsvg.New(pictureWidth, pictureHeight)
	tiles := draw.Tiles{Rows: len(charts), Cols: 1, PadY: vg.Millimeter * 4}
	var rows [][]*plot.Plot
	for _, one := range charts {
		p, err := one.plot(samples)
		if err != nil {
			return err
		}
		rows = append(rows, []*plot.Plot{p})
	}
	for i, row := range plot.Align(rows, tiles, draw.Crop(draw.New(canvas), vg.Millimeter, -4*vg.Millimeter, vg.Millimeter, -vg.Millimeter)) {
		rows[i][0].Draw(row[0])
	}
	picture, err := os.Create(file) // #nosec G304 -- the file that was asked for
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(picture)
	return errors.Join(err, picture.Close())
}

func (c chart) plot(samples []sample) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = c.title
	p.Title.TextStyle.Font.Size, p.Legend.TextStyle.Font.Size = vg.Points(10), vg.Points(8)
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Millimeter
	p.X.Label.Text, p.X.Label.TextStyle.Font.Size = "seconds", vg.Points(8)
	p.Add(plotter.NewGrid())
	highest, lowest := 0.0, math.Inf(1)
	var curves []plot.Plotter
	for i, one := range c.lines {
		points := one.points(samples)
		for _, point := range points {
			highest, lowest = max(highest, point.Y), min(lowest, point.Y)
		}
		curve, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		curve.Color, curve.Width = plotutil.Color(i), vg.Points(1.5)
		curves = append(curves, curve)
		p.Legend.Add(one.name, curve)
	}
	p.Y.Min, p.Y.Max = 0, highest*1.3+0.1
	if c.logY {
		p.Y.Min, p.Y.Max = lowest/2, highest*3
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	shade, err := outageShade(p.Y.Min, p.Y.Max)
	if err != nil {
		return nil, err
	}
	p.Add(append([]plot.Plotter{shade}, curves...)...)
	p.X.Min, p.X.Max = 0, playEnds.Seconds()
	return p, nil
}

func (l line) points(samples []sample) plotter.XYs {
	var points plotter.XYs
	for i := window; i < len(samples); i++ {
		if y := l.value(samples[i-window], samples[i]); !math.IsNaN(y) {
			points = append(points, plotter.XY{X: samples[i].at.Seconds(), Y: y})
		}
	}
	return points
}

// outageShade is the time in which Vault is away.
func outageShade(low, high float64) (*plotter.Polygon, error) {
	from, to := outageBegins.Seconds(), outageEnds.Seconds()
	shade, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: low}, {X: to, Y: low}, {X: to, Y: high}, {X: from, Y: high}})
	if err != nil {
		return nil, err
	}
	shade.Color = color.RGBA{R: 255, G: 235, B: 225, A: 255}
	shade.LineStyle.Width = 0
	return shade, nil
}
