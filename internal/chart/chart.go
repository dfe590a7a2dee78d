// Package chart draws the pictures of the documents as SVG, in one style.
//
// The pictures are read on GitHub, by day and by night, on machines whose fonts nobody knows. So a
// picture is a card with a background of its own, its colours follow the reader's colour scheme,
// its fonts are the system's, and room is left for the widest of them. It needs the standard
// library alone: every program of the project can use it, whichever module it belongs to.
package chart

import "math"

// Picture is panels below each other that share one x axis.
type Picture struct {
	Alt    string // what the picture shows, for those who do not see it
	X      Axis
	Panels []Panel
	Band   Band // shaded in every panel; the zero Band is none
}

// Axis is the x axis.
type Axis struct {
	Name  string // with its unit
	Log   bool
	Ticks []float64
	Label func(float64) string // writes a tick; nil: Number
}

// Panel is one plot.
type Panel struct {
	Title   string
	Unit    string // of the y axis, beside the title
	Height  float64
	Log     bool // the y axis; otherwise it begins at 0
	Stacked bool // the lines are layers on top of each other, the first one at the bottom
	Lines   []Line
}

// Line is what one thing did.
type Line struct {
	Name   string // stands at the line's end
	Color  Color
	Dash   Dash
	Points []Point // from left to right
}

// Point is one measurement.
type Point struct{ X, Y float64 }

// Band is a part of the x axis in which something was different.
type Band struct {
	From, To float64
	Name     string
}

// drawable are the points that have a place in the panel: a logarithm has none for zero.
func (p Panel) drawable(line Line) []Point {
	var points []Point
	for _, one := range line.Points {
		if math.IsNaN(one.Y) || math.IsInf(one.Y, 0) || p.Log && one.Y <= 0 {
			continue
		}
		points = append(points, one)
	}
	return points
}

// layers are the upper edges of a stack, the lowest layer first.
func (p Panel) layers() [][]Point {
	sum := map[float64]float64{}
	var all [][]Point
	for _, line := range p.Lines {
		var edge []Point
		for _, one := range line.Points {
			sum[one.X] += one.Y
			edge = append(edge, Point{one.X, sum[one.X]})
		}
		all = append(all, edge)
	}
	return all
}

// edges are the points of each line as they are drawn.
func (p Panel) edges() [][]Point {
	if p.Stacked {
		return p.layers()
	}
	var all [][]Point
	for _, line := range p.Lines {
		all = append(all, p.drawable(line))
	}
	return all
}
