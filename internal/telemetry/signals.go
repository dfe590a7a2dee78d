package telemetry

import "strings"

// signals says what is to be exported.
type signals struct {
	traces  bool
	metrics []string // the names of the exporters
}

func (s signals) nothing() bool { return !s.traces && len(s.metrics) == 0 }

// wantedSignals reads from the environment which signals to export. A signal is wanted when its exporter is
// named, or when none is named but an OTLP endpoint is; "none" and OTEL_SDK_DISABLED=true say no. Metrics may have
// several exporters, separated by commas.
func wantedSignals(getenv lookup) signals {
	value := func(name string) string {
		text, _ := getenv(name)
		return strings.TrimSpace(text)
	}
	if strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") {
		return signals{}
	}
	exporters := func(signal string) string {
		if exporter := value("OTEL_" + signal + "_EXPORTER"); exporter != "" {
			return exporter
		}
		if value("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || value("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != "" {
			return "otlp"
		}
		return "none"
	}
	wanted := signals{traces: exporters("TRACES") != "none"}
	for exporter := range strings.SplitSeq(exporters("METRICS"), ",") {
		if exporter = strings.TrimSpace(exporter); exporter != "" && exporter != "none" {
			wanted.metrics = append(wanted.metrics, exporter)
		}
	}
	return wanted
}
