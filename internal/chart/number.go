package chart

import (
	"math"
	"strconv"
)

// Number writes a number so that it is read at a glance: 0.5, 16, 256, 1.5k, 4,096, 20k, 1M.
func Number(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e6, "M"}, {1e3, "k"}} {
		tenths := v / unit.size * 10
		if math.Abs(v) >= unit.size && tenths == math.Trunc(tenths) {
			return strconv.FormatFloat(v/unit.size, 'f', -1, 64) + unit.name
		}
	}
	if v == math.Trunc(v) || math.Abs(v) >= 100 {
		return Grouped(int64(math.Round(v)))
	}
	digits := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v)))) // three that count
	return strconv.FormatFloat(math.Round(v*digits)/digits, 'f', -1, 64)
}

// Grouped writes 1234567 as 1,234,567.
func Grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
