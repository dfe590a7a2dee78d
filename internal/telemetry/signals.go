package telemetry

import (
	"slices"
	"strings"
)

// signals says what is to be exported: the names of each signal's exporters.
type signals struct {
	traces  []string
	metrics []string
}

func (s signals) nothing() bool { return len(s.traces) == 0 && len(s.metrics) == 0 }

// wantedSignals reads from the environment which signals to export. A signal is wanted when its
// exporters are named, separated by commas, or when none is named but an OTLP endpoint is. "none"
// and OTEL_SDK_DISABLED=true say no.
func wantedSignals(getenv lookup) signals {
	if strings.EqualFold(trimmed(getenv, "OTEL_SDK_DISABLED"), "true") {
		return signals{}
	}
	return signals{
		traces: wantedExporters(getenv, "TRACES"), metrics: wantedExporters(getenv, "METRICS"),
	}
}

// wantedExporters returns those of one signal, each once: a second Prometheus would find its port
// taken by the first.
func wantedExporters(getenv lookup, signal string) []string {
	var wanted []string
	for exporter := range strings.SplitSeq(exporterList(getenv, signal), ",") {
		exporter = strings.TrimSpace(exporter)
		if exporter != "" && exporter != "none" && !slices.Contains(wanted, exporter) {
			wanted = append(wanted, exporter)
		}
	}
	return wanted
}

func exporterList(getenv lookup, signal string) string {
	if listed := trimmed(getenv, "OTEL_"+signal+"_EXPORTER"); listed != "" {
		return listed
	}
	for _, endpoint := range []string{"ENDPOINT", signal + "_ENDPOINT"} {
		if trimmed(getenv, "OTEL_EXPORTER_OTLP_"+endpoint) != "" {
			return "otlp"
		}
	}
	return "none"
}

func trimmed(getenv lookup, name string) string {
	text, _ := getenv(name)
	return strings.TrimSpace(text)
}
