package chart

import (
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// box is where a text stands.
type box struct {
	text                     string
	left, top, right, bottom float64
}

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

func (b box) holds(p Point) bool {
	return b.left < p.X && p.X < b.right && b.top < p.Y && p.Y < b.bottom
}

// drawn is what a test reads of a picture.
type drawn struct {
	Width  float64 `xml:"width,attr"`
	Height float64 `xml:"height,attr"`
	Title  string  `xml:"title"`
	Texts  []struct {
		X      float64  `xml:"x,attr"`
		Y      float64  `xml:"y,attr"`
		Anchor string   `xml:"text-anchor,attr"`
		Text   string   `xml:",chardata"`
		Spans  []string `xml:"tspan"`
	} `xml:"text"`
	Paths []struct {
		Class string `xml:"class,attr"`
		Way   string `xml:"d,attr"`
	} `xml:"path"`
}

func read(t *testing.T, svg []byte) drawn {
	t.Helper()
	var d drawn
	if err := xml.Unmarshal(svg, &d); err != nil {
		t.Fatalf("the picture is no XML: %v", err)
	}
	return d
}

// boxes are where the texts stand, each as wide as the widest usual font makes it.
func (d drawn) boxes() []box {
	var all []box
	for _, one := range d.Texts {
		text, wide, size := one.Text, widthOf(one.Text), fontSize
		if len(one.Spans) == 2 { // a title, bold and larger, and its unit
			text, size = one.Spans[0], 15
			wide = widthOf(one.Spans[0])*1.1*size/fontSize + 10 + widthOf(one.Spans[1])
		}
		left := one.X
		switch one.Anchor {
		case "middle":
			left -= wide / 2
		case "end":
			left -= wide
		}
		all = append(all, box{text, left, one.Y - 0.75*size, left + wide, one.Y + 0.2*size})
	}
	return all
}

// curves are the points of all lines.
func (d drawn) curves(t *testing.T) []Point {
	t.Helper()
	var all []Point
	for _, path := range d.Paths {
		if !strings.HasPrefix(path.Class, "line") {
			continue
		}
		for step := range strings.SplitSeq(strings.TrimPrefix(path.Way, "M"), "L") {
			var p Point
			if _, err := fmt.Sscan(step, &p.X, &p.Y); err != nil {
				t.Fatalf("%q is no point: %v", step, err)
			}
			all = append(all, p)
		}
	}
	return all
}

// requireReadable fails when a text is cut, lies over another, or a line goes through it.
func requireReadable(t *testing.T, svg []byte) {
	t.Helper()
	d := read(t, svg)
	if d.Title == "" {
		t.Error("those who do not see the picture are told nothing")
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(string(svg), bad) {
			t.Errorf("the picture holds %s", bad)
		}
	}
	boxes := d.boxes()
	for i, one := range boxes {
		if one.left < 0 || one.top < 0 || one.right > d.Width || one.bottom > d.Height {
			t.Errorf("%q is cut: %+v in %v × %v", one.text, one, d.Width, d.Height)
		}
		for _, other := range boxes[i+1:] {
			if one.meets(other) {
				t.Errorf("%q lies over %q", one.text, other.text)
			}
		}
		for _, point := range d.curves(t) {
			if one.holds(point) {
				t.Errorf("a line goes through %q at %v", one.text, point)
			}
		}
	}
}

func TestEveryKeptPictureIsReadable(t *testing.T) {
	files, err := filepath.Glob("../../docs/*/*.svg")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d pictures: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			svg, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			requireReadable(t, svg)
		})
	}
}

// panelOf has a line for each row of values, all with the same name's length.
func panelOf(log bool, rows ...[]float64) Panel {
	p := Panel{Title: "Title", Unit: "ms", Height: 200, Log: log}
	for i, row := range rows {
		line := Line{Name: "line " + strconv.Itoa(i), Color: Sidecar}
		for x, y := range row {
			line.Points = append(line.Points, Point{float64(x + 1), y})
		}
		p.Lines = append(p.Lines, line)
	}
	return p
}

func TestPicturesOfAnyNumbersAreReadable(t *testing.T) {
	crowd := [][]float64{{1, 5}, {1, 5}, {2, 5}, {3, 5.01}, {4, 4.99}, {5, 5}, {6, 0.1}}
	stack := panelOf(false, []float64{1, 0, 2}, []float64{0, 0, 0}, []float64{3, 2, 1})
	noLayers := panelOf(false, nil)
	stack.Stacked, noLayers.Stacked = true, true
	for name, panel := range map[string]Panel{
		"names that end at one place":   panelOf(false, crowd...),
		"the same on a log scale":       panelOf(true, crowd...),
		"numbers far apart":             panelOf(true, []float64{1e-6, 1e9}),
		"numbers close together":        panelOf(true, []float64{28_000, 34_000, 31_000}),
		"large numbers":                 panelOf(false, []float64{1_234_567, 9_876_543}),
		"nothing but zeros":             panelOf(false, []float64{0, 0}),
		"zeros, which have no log":      panelOf(true, []float64{0, 0}),
		"some numbers that are missing": panelOf(true, []float64{math.NaN(), 2, math.Inf(1)}),
		"no numbers at all":             panelOf(true, nil),
		"layers":                        stack,
		"no layers yet":                 noLayers,
	} {
		t.Run(name, func(t *testing.T) {
			requireReadable(t, Picture{
				Alt: "a picture", X: Axis{Name: "callers", Log: true, Ticks: []float64{1, 2, 3}},
				Panels: []Panel{panel, panel}, Band: Band{From: 1.5, To: 2.5, Name: "away"},
			}.SVG())
		})
	}
}

func TestTicksOfTheXAxisThatHaveNoRoomAreNotNamed(t *testing.T) {
	ticks := []float64{1, 1.001, 10, 1000}
	panels := []Panel{panelOf(false, []float64{1})}
	d := read(t, Picture{X: Axis{Log: true, Ticks: ticks}, Panels: panels}.SVG())
	var names []string
	for _, one := range d.Texts {
		if one.Anchor == "middle" {
			names = append(names, one.Text)
		}
	}
	if want := []string{"1", "10", "1k", ""}; !slices.Equal(names, want) {
		t.Errorf("the axis says %q, want %q", names, want)
	}
}

func TestTextsThatLookLikeMarkupAreText(t *testing.T) {
	panel := panelOf(false, []float64{1})
	panel.Title, panel.Lines[0].Name = "<b>&", `"<i>"`
	d := read(t, Picture{Alt: "a < b", X: Axis{Ticks: []float64{1}}, Panels: []Panel{panel}}.SVG())
	if d.Title != "a < b" || d.Texts[0].Spans[0] != "<b>&" {
		t.Errorf("read %q and %q", d.Title, d.Texts[0].Spans)
	}
}

func TestTicksAreRound(t *testing.T) {
	for _, c := range []struct {
		log       bool
		low, high float64
		want      []float64
	}{
		{false, 0, 1700, []float64{0, 200, 400, 600, 800, 1000, 1200, 1400, 1600}},
		{false, 0, 16, []float64{0, 2, 4, 6, 8, 10, 12, 14, 16}},
		{true, 800, 300_000, []float64{1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5}},
		{true, 0.02, 80, []float64{0.03, 0.1, 0.3, 1, 3, 10, 30}},
		{true, 1, 1e8, []float64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}},
	} {
		near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b }
		got := scale{c.log, c.low, c.high, 300, 0}.ticks()
		if !slices.EqualFunc(got, c.want, near) {
			t.Errorf("from %v to %v: %v, want %v", c.low, c.high, got, c.want)
		}
	}
}

func TestNumbersAreReadAtAGlance(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01: "0.01", 3 * 0.1: "0.3", 0.000001: "0.000001", 2.5: "2.5", 16: "16",
		256: "256", 1000: "1k", 1500: "1.5k", 4096: "4,096", 20_000: "20k", 1e6: "1M",
		2_500_000: "2.5M", 1_048_576: "1,048,576", 1234.5: "1,235", -2000: "-2k", -1.02: "-1.02",
	} {
		if got := Number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
