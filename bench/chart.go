package main

import (
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgsvg" // charts are SVG
)

const (
	chartWidth  = 16 * vg.Centimeter
	chartHeight = 9 * vg.Centimeter
)

// charted are the subjects that the charts of load show.
var charted = []string{subjectEcho, subjectCached, subjectMetrics, subjectBatch, subjectDirect, subjectProxyMade, subjectProxy}

// drawCharts draws one chart for the throughput, one for the p99, and one for each growth.
func (r *results) drawCharts(folder string) error {
	var throughput, tail []curve
	for _, subject := range charted {
		rate, slowest := curve{name: subject}, curve{name: subject}
		for _, one := range r.Load {
			if one.Subject == subject {
				x := float64(one.Callers)
				rate.points = append(rate.points, plotter.XY{X: x, Y: median(perSecond, one.Rounds)})
				slowest.points = append(slowest.points, plotter.XY{X: x, Y: millis(median(p99, one.Rounds))})
			}
		}
		throughput, tail = append(throughput, rate), append(tail, slowest)
	}
	if err := draw(filepath.Join(folder, "throughput.svg"), "Secrets a second", "callers", "secrets a second", true, throughput); err != nil {
		return err
	}
	if err := draw(filepath.Join(folder, "p99.svg"), "p99 of a call", "callers", "ms", true, tail); err != nil {
		return err
	}
	for _, g := range r.Growth {
		if err := draw(filepath.Join(folder, g.file()+".svg"), g.Title, g.X, "", g.LogY, g.curves()); err != nil {
			return err
		}
	}
	return nil
}

func (g growth) curves() []curve {
	var all []curve
	for _, column := range g.Chart {
		one := curve{name: g.Columns[column]}
		for _, p := range g.Points {
			one.points = append(one.points, plotter.XY{X: p.X, Y: p.Values[column]})
		}
		all = append(all, one)
	}
	return all
}

// curve is one line of a chart.
type curve struct {
	name   string
	points plotter.XYs
}

// draw draws the curves that have points; where none has any, nothing.
func draw(file, title, x, y string, logY bool, curves []curve) error {
	curves = slices.DeleteFunc(curves, func(c curve) bool { return len(c.points) == 0 }) // without a real Vault, for example
	if len(curves) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticksAt(curves)
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	p.Add(plotter.NewGrid())
	if logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	for i, one := range curves {
		line, dots, err := plotter.NewLinePoints(one.points)
		if err != nil {
			return err
		}
		line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		line.Width = vg.Points(1.5)
		p.Add(line, dots)
		p.Legend.Add(one.name, line, dots)
	}
	if !logY {
		p.Y.Max *= 1.4 // room for the legend
	} else {
		p.Y.Max *= 10
	}
	return p.Save(chartWidth, chartHeight, file)
}

// ticksAt labels the points that were measured.
func ticksAt(curves []curve) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, one := range curves {
		for _, point := range one.points {
			if !slices.ContainsFunc(ticks, func(t plot.Tick) bool { return t.Value == point.X }) {
				ticks = append(ticks, plot.Tick{Value: point.X, Label: number(point.X)})
			}
		}
	}
	return ticks
}
