package main

import (
	"maps"
	"math"
	"slices"
)

// window is how many samples a rate is taken over.
const window = 2

// moment is what the picture shows of one time.
type moment struct {
	At      float64            // seconds since the play began
	Numbers map[string]float64 // by name; without those that there is no saying of
}

// momentsOf compares each sample with the one a window earlier.
func momentsOf(samples []sample) []moment {
	var all []moment
	for i := window; i < len(samples); i++ {
		before, now := samples[i-window], samples[i]
		numbers := map[string]float64{
			"p50":     1000 * quantileOf(0.5, before.calls, now.calls), // in ms
			"p99":     1000 * quantileOf(0.99, before.calls, now.calls),
			"age p50": quantileOf(0.5, before.ages, now.ages), // in seconds
			"age p99": quantileOf(0.99, before.ages, now.ages),
			"silence": now.silence,
		}
		for _, outcome := range []string{"cache", "stale", "vault", "error"} { // a second
			grown := now.outcomes[outcome] - before.outcomes[outcome]
			numbers[outcome] = grown / (now.at - before.at).Seconds()
		}
		maps.DeleteFunc(numbers, func(_ string, v float64) bool { return math.IsNaN(v) })
		for name, v := range numbers {
			numbers[name] = rounded(v)
		}
		all = append(all, moment{At: rounded(now.at.Seconds()), Numbers: numbers})
	}
	return all
}

// rounded keeps what a picture can show.
func rounded(v float64) float64 { return math.Round(v*10_000) / 10_000 }

// quantileOf is what Prometheus's histogram_quantile says of the time between two samples; NaN when
// nothing happened.
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
