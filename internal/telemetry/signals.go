package telemetry

import "strings"

// signals says what is to be exported.
type signals struct {
	traces, metrics bool
}

// wantedSignals reads from the environment which signals to export. A signal is wanted when its exporter is
// named, or when none is named but an OTLP endpoint is; "none" and OTEL_SDK_DISABLED=true say no.
func wantedSignals(getenv func(string) (string, bool)) signals {
	value := func(name string) string {
		text, _ := getenv(name)
		return strings.TrimSpace(text)
	}
	if strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") {
		return signals{}
	}
	wanted := func(signal string) bool {
		if exporter := value("OTEL_" + signal + "_EXPORTER"); exporter != "" {
			return exporter != "none"
		}
		return value("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || value("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	return signals{traces: wanted("TRACES"), metrics: wanted("METRICS")}
}
