package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/chart"
)

const (
	answersHeight = 170
	otherHeight   = 120
)

// picture shows the moments of a play.
func picture(moments []moment) chart.Picture {
	line := func(name, number string, color chart.Color, dash chart.Dash) chart.Line {
		one := chart.Line{Name: name, Color: color, Dash: dash}
		for _, m := range moments {
			if y, ok := m.Numbers[number]; ok {
				one.Points = append(one.Points, chart.Point{X: m.At, Y: y})
			}
		}
		return one
	}
	axis := chart.Axis{Name: "seconds"}
	for at := 0.0; at <= playEnds.Seconds(); at += 5 {
		axis.Ticks = append(axis.Ticks, at)
	}
	return chart.Picture{
		Alt: "Three charts over the seconds before, in and after an outage of Vault:" +
			" what workers get, how long they wait, and how old the values are",
		X: axis,
		Band: chart.Band{From: outageBegins.Seconds(), To: outageEnds.Seconds(),
			Name: "Vault is away"},
		Panels: []chart.Panel{
			{
				Title: "What workers get", Unit: "values a second", Height: answersHeight,
				Stacked: true,
				Lines: []chart.Line{
					line("refused", "error", chart.Failed, chart.Solid),
					line("read from Vault", "vault", chart.VaultItself, chart.Solid),
					line("stale copy", "stale", chart.Stale, chart.Solid),
					line("fresh copy", "cache", chart.Cache, chart.Solid),
				},
			},
			{
				Title: "How long they wait", Unit: "ms", Height: otherHeight, Log: true,
				Lines: []chart.Line{
					line("p50", "p50", chart.Sidecar, chart.Solid),
					line("p99", "p99", chart.Sidecar, chart.Dashed),
				},
			},
			{
				Title: "How old the values are", Unit: "seconds", Height: otherHeight,
				Lines: []chart.Line{
					line("p50", "age p50", chart.Sidecar, chart.Solid),
					line("p99", "age p99", chart.Sidecar, chart.Dashed),
					line("since Vault's last answer", "silence", chart.VaultItself, chart.Solid),
				},
			},
		},
	}
}

// numbersOf is the file of the numbers that a picture shows.
func numbersOf(file string) string { return strings.TrimSuffix(file, ".svg") + ".json" }

// keep writes the moments beside the picture, one on each line.
func keep(file string, moments []moment) error {
	lines := make([]string, len(moments))
	for i, one := range moments {
		line, err := json.Marshal(one)
		if err != nil {
			return fmt.Errorf("encode what was scraped: %w", err)
		}
		lines[i] = string(line)
	}
	text := "[\n" + strings.Join(lines, ",\n") + "\n]\n"
	if err := os.WriteFile(numbersOf(file), []byte(text), 0o644); err != nil {
		return fmt.Errorf("keep what was scraped: %w", err)
	}
	return nil
}

// draw draws the moments that were kept beside the picture.
func draw(file string) error {
	text, err := os.ReadFile(numbersOf(file))
	if err != nil {
		return fmt.Errorf("read what an earlier play has kept: %w", err)
	}
	var moments []moment
	if err := json.Unmarshal(text, &moments); err != nil {
		return fmt.Errorf("read what %s has kept: %w", numbersOf(file), err)
	}
	if err := os.WriteFile(file, picture(moments).SVG(), 0o644); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}
