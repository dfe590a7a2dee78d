package chart

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// rgb is a colour's light, without the screen's gamma.
type rgb [3]float64

func parse(t *testing.T, color string) rgb {
	t.Helper()
	var r, g, b int
	if _, err := fmt.Sscanf(color, "#%02x%02x%02x", &r, &g, &b); err != nil {
		t.Fatalf("%q: %v", color, err)
	}
	var light rgb
	for i, v := range []int{r, g, b} {
		if c := float64(v) / 255; c <= 0.04045 {
			light[i] = c / 12.92
		} else {
			light[i] = math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return light
}

// contrast is WCAG's.
func contrast(a, b rgb) float64 {
	luminance := func(c rgb) float64 { return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2] + 0.05 }
	return max(luminance(a), luminance(b)) / min(luminance(a), luminance(b))
}

func TestColorsAndInkStandOutByDayAndByNight(t *testing.T) {
	light, dark := parse(t, card.light), parse(t, card.dark)
	require := func(name string, s shades, atLeast float64) {
		if c := min(contrast(parse(t, s.light), light),
			contrast(parse(t, s.dark), dark)); c < atLeast {
			t.Errorf("%s has a contrast of %.2f, want %v", name, c, atLeast)
		}
	}
	for name, s := range palette { // 3 and 4.5 are what WCAG asks of graphics and of text
		require(string(name), s, 3)
	}
	require("ink", ink, 4.5)
	require("muted ink", muted, 4.5)
}

type matrix [3]rgb

func (m matrix) times(c rgb) rgb {
	var out rgb
	for i, row := range m {
		out[i] = row[0]*c[0] + row[1]*c[1] + row[2]*c[2]
	}
	return out
}

// sights are how eyes see colours: Machado's simulation of full colour blindness.
var sights = map[string]matrix{
	"full colour": {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"no red": {
		{0.152286, 1.052583, -0.204868},
		{0.114503, 0.786281, 0.099216},
		{-0.003882, -0.048116, 1.051998},
	},
	"no green": {
		{0.367322, 0.860646, -0.227968},
		{0.280085, 0.672501, 0.047413},
		{-0.011820, 0.042940, 0.968881},
	},
	"no blue": {
		{1.255528, -0.076749, -0.178779},
		{-0.078411, 0.930809, 0.147602},
		{0.004733, 0.691367, 0.303900},
	},
}

// oklab is a space in which distances are differences that eyes see.
func oklab(c rgb) rgb {
	cones := matrix{
		{0.4122214708, 0.5363325363, 0.0514459929},
		{0.2119034982, 0.6806995451, 0.1073969566},
		{0.0883024619, 0.2817188376, 0.6299787005},
	}.times(rgb{max(c[0], 0), max(c[1], 0), max(c[2], 0)})
	return matrix{
		{0.2104542553, 0.7936177850, -0.0040720468},
		{1.9779984951, -2.4285922050, 0.4505937099},
		{0.0259040371, 0.7827717662, -0.8086757660},
	}.times(rgb{math.Cbrt(cones[0]), math.Cbrt(cones[1]), math.Cbrt(cones[2])})
}

func TestColorsOfOnePictureStayApartInColorBlindness(t *testing.T) {
	const atLeast = 0.1 // five times what is just seen
	pictures := [][]Color{
		{Sidecar, VaultItself, VaultProxy, BareGRPC}, {Cache, Stale, VaultItself, Failed},
	}
	for sight, m := range sights {
		apart := func(a, b string) float64 {
			x, y := oklab(m.times(parse(t, a))), oklab(m.times(parse(t, b)))
			return math.Hypot(math.Hypot(x[0]-y[0], x[1]-y[1]), x[2]-y[2])
		}
		for _, colors := range pictures {
			for i, a := range colors {
				for _, b := range colors[i+1:] {
					one, other := palette[a], palette[b]
					d := min(apart(one.light, other.light), apart(one.dark, other.dark))
					if d < atLeast {
						t.Errorf("with %s %s and %s are %.3f apart, want %v", sight, a, b, d,
							atLeast)
					}
				}
			}
		}
	}
}

func TestPicturesFollowTheReadersColorScheme(t *testing.T) {
	day, night, found := strings.Cut(styleSheet(), "@media (prefers-color-scheme:dark)")
	if !found || !strings.Contains(day, card.light) || !strings.Contains(night, card.dark) {
		t.Error("the card does not change by night")
	}
	for name, s := range palette {
		if !strings.Contains(day, s.light) || !strings.Contains(night, s.dark) {
			t.Errorf("%s does not change by night", name)
		}
	}
}
