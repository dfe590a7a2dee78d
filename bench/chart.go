package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/chart"
)

// plotHeight is that of every chart, in pixels.
const plotHeight = 300

// What the charts of load show, for those who do not see them.
const (
	altThroughput = "Line chart of secrets a second by callers at once: " + altSubjects
	altTail       = "Line chart of the p99 of a call by callers at once: " + altSubjects
	altSubjects   = "secret-sidecar, a bare gRPC server, vault/api and Vault Proxy"
)

// charted are the subjects in the charts of load, with how each is drawn and its name there.
var charted = map[string]chart.Line{
	subjectCached: {Name: "secret-sidecar", Color: chart.Sidecar},
	subjectBatch: {Name: "secret-sidecar, batches of 10", Color: chart.Sidecar,
		Dash: chart.Dashed},
	subjectEcho:      {Name: "bare gRPC, no secrets", Color: chart.BareGRPC, Dash: chart.Dotted},
	subjectDirect:    {Name: subjectDirect, Color: chart.VaultItself},
	subjectProxyMade: {Name: subjectProxyMade, Color: chart.VaultProxy},
	subjectProxy:     {Name: subjectProxy, Color: chart.VaultProxy, Dash: chart.Dashed},
}

// drawCharts draws one chart for the throughput, one for the p99, and one for each growth.
func (r *results) drawCharts(directory string) error {
	pictures := map[string]chart.Picture{
		"throughput": r.loadChart(altThroughput, "Throughput", "secrets a second, more is better",
			func(m []measurement) float64 { return median(perSecond, m) }),
		"p99": r.loadChart(altTail, "Slowest call in a hundred", "p99 in ms, less is better",
			func(m []measurement) float64 { return millis(median(p99, m)) }),
	}
	for _, g := range r.Growth {
		pictures[g.file()] = g.chart()
	}
	for name, picture := range pictures {
		if len(picture.Panels[0].Lines) == 0 { // nothing was measured
			continue
		}
		file := filepath.Join(directory, name+".svg")
		if err := os.WriteFile(file, picture.SVG(), 0o644); err != nil {
			return fmt.Errorf("write a chart: %w", err)
		}
	}
	return nil
}

// loadChart shows one number of each charted subject by number of callers.
func (r *results) loadChart(alt, title, unit string, of func([]measurement) float64) chart.Picture {
	panel := chart.Panel{Title: title, Unit: unit, Height: plotHeight, Log: true}
	for _, subject := range []string{
		subjectCached, subjectBatch, subjectEcho, subjectDirect, subjectProxyMade, subjectProxy,
	} {
		line := charted[subject]
		for _, one := range r.Load {
			if one.Subject == subject {
				line.Points = append(line.Points,
					chart.Point{X: float64(one.Callers), Y: of(one.Rounds)})
			}
		}
		if len(line.Points) > 0 { // Vault Proxy has none without a real Vault
			panel.Lines = append(panel.Lines, line)
		}
	}
	axis := chart.Axis{Name: "callers at once", Log: true}
	for _, callers := range r.Callers {
		axis.Ticks = append(axis.Ticks, float64(callers))
	}
	return chart.Picture{Alt: alt, X: axis, Panels: []chart.Panel{panel}}
}

// chart draws the columns that the growth selects.
func (g growth) chart() chart.Picture {
	axis := chart.Axis{Name: g.X, Log: true}
	if g.X == "bytes" {
		axis.Name, axis.Label = "size of the value", bytesOf
	}
	panel := chart.Panel{Title: g.Title, Height: plotHeight, Log: g.LogY}
	for _, one := range g.Points {
		axis.Ticks = append(axis.Ticks, one.X)
	}
	dashes := []chart.Dash{chart.Solid, chart.Dashed, chart.Dotted}
	for i, column := range g.Chart {
		line := chart.Line{Color: chart.Sidecar, Dash: dashes[i]}
		line.Name, panel.Unit = splitUnit(g.Columns[column])
		if name, isEcho := strings.CutSuffix(line.Name, "the echo"); isEcho {
			line.Name, line.Color, line.Dash = name+"bare gRPC", chart.BareGRPC, chart.Dotted
		}
		scale := 1.0
		if panel.Unit == "µs" { // 3.5 ms reads better than 3,500 µs
			panel.Unit, scale = "ms", 1e-3
		}
		for _, one := range g.Points {
			line.Points = append(line.Points, chart.Point{X: one.X, Y: one.Values[column] * scale})
		}
		panel.Lines = append(panel.Lines, line)
	}
	if len(panel.Lines) == 1 { // the title says what it is
		panel.Unit, panel.Lines[0].Name = g.Columns[g.Chart[0]], ""
	}
	return chart.Picture{Alt: g.alt(), X: axis, Panels: []chart.Panel{panel}}
}

// alt describes the chart to readers who do not see it.
func (g growth) alt() string {
	var columns []string
	for _, column := range g.Chart {
		columns = append(columns, g.Columns[column])
	}
	return fmt.Sprintf("Line chart by %s: %s", g.X, strings.Join(columns, "; "))
}

// splitUnit parts "p50 of a hit, µs" into what it is and its unit.
func splitUnit(column string) (what, unit string) {
	at := strings.LastIndex(column, ", ")
	if at < 0 || !slices.Contains([]string{"µs", "ms", "MB", "B"}, column[at+2:]) {
		return column, ""
	}
	return column[:at], column[at+2:]
}

// bytesOf writes a size: 256 B, 4 KiB, 1 MiB.
func bytesOf(v float64) string {
	for _, unit := range []string{"B", "KiB"} {
		if v < 1024 {
			return chart.Number(v) + " " + unit
		}
		v /= 1024
	}
	return chart.Number(v) + " MiB"
}
