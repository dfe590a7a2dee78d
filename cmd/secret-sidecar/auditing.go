package main

import (
	"log/slog"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
)

// auditing is the audit log of a running sidecar, if it has one.
type auditing struct {
	log *audit.Log // nil: there is none
}

func openAudit(c config.Audit, logger *slog.Logger) (*auditing, error) {
	if c == (config.Audit{}) {
		return &auditing{}, nil
	}
	log, err := audit.Open(c.File, audit.Options{HashPaths: c.HashPaths, Required: c.Required,
		Logger: logger})
	if err != nil {
		return nil, err
	}
	return &auditing{log: log}, nil
}

// reopen follows a file that logrotate has renamed.
func (a *auditing) reopen(log *slog.Logger) {
	if a.log == nil {
		return
	}
	if err := a.log.Reopen(); err != nil {
		log.Error("the audit log cannot be opened again, lines go on into the old file", "error",
			err)
	}
}

func (a *auditing) close(log *slog.Logger) {
	if a.log == nil {
		return
	}
	if err := a.log.Close(); err != nil {
		log.Warn("the last lines of the audit log may be lost", "error", err)
	}
}
