package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// TestConnection implements the API.
func (s *Server) TestConnection(
	ctx context.Context, request *secretsidecarv1.TestConnectionRequest,
) (*secretsidecarv1.TestConnectionResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	report, err := s.testTarget(ctx, caller, request)
	if unwritten := s.auditTest(ctx, caller, request, report.GetOk(), err); unwritten != nil {
		return nil, unwritten
	}
	return report, err
}

func (s *Server) testTarget(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.TestConnectionRequest,
) (*secretsidecarv1.TestConnectionResponse, error) {
	switch target := request.GetTarget().(type) {
	case *secretsidecarv1.TestConnectionRequest_Connection:
		return s.testConfigured(ctx, caller, target.Connection, request.GetPath())
	case *secretsidecarv1.TestConnectionRequest_Spec:
		return s.testSpec(ctx, caller, target.Spec, request.GetPath())
	default:
		return nil, errInvalidRequest(field("target", "name a connection, or describe one in spec"))
	}
}

// auditTest writes down which Vault was tested, and with which secret. Credentials are no part of
// it, and of an address only the host, for the rest may hold some.
func (s *Server) auditTest(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.TestConnectionRequest, ok bool, err error,
) *problem {
	line := audit.Entry{Connection: request.GetConnection(), Path: request.GetPath(), Outcome: auditFailed}
	if ok {
		line.Outcome = auditOK
	}
	if spec := request.GetSpec(); spec != nil {
		line.Connection = spec.GetName()
		if address, err := vault.ParseAddress(spec.GetAddress()); err == nil {
			line.Address = address.Host
		}
	}
	return s.auditCall(ctx, caller, methodTestConnection, line, err)
}

func (s *Server) testConfigured(
	ctx context.Context, caller unixsocket.Peer, name, path string,
) (*secretsidecarv1.TestConnectionResponse, error) {
	running := s.current.Load()
	c, err := s.enter(running, caller, access{method: methodTestConnection, asked: name})
	if err != nil {
		return nil, err
	}
	defer c.release()
	reference, err := vault.ParseOptionalReference(path)
	if err != nil {
		return nil, errInvalidPath(err)
	}
	within := running.reachOf(caller, methodTestConnection, c)
	if reference != nil && !within.includes(targetOf(*reference)) {
		return nil, within.refusal(caller)
	}
	report := c.client.Test(ctx, reference)
	c.warnOfWaiting(&report)
	return reportOf(ctx, report)
}

// testSpec makes the sidecar connect to an address of the caller's choice.
func (s *Server) testSpec(
	ctx context.Context, caller unixsocket.Peer, spec *secretsidecarv1.ConnectionSpec, path string,
) (*secretsidecarv1.TestConnectionResponse, error) {
	running := s.current.Load()
	err := authorize(running.callers, caller, access{method: methodTestConnectionSpec, connection: anyConnection})
	if err != nil {
		return nil, err
	}
	reference, err := vault.ParseOptionalReference(path)
	if err != nil {
		return nil, errInvalidPath(err)
	}
	if mistakes := credentialMistakes(spec); len(mistakes) > 0 {
		return nil, errInvalidRequest(mistakes...)
	}
	if wait := take(s.specTests, 1, time.Now()); wait > 0 {
		return nil, errRateLimited("too many connections were tested by spec lately: wait some seconds", wait)
	}
	config := conn.Config{
		Settings: specSettings(spec),
		Options: vault.Options{
			AllowedHosts: running.testHosts,
			Memory:       s.readMemory,
			Tracer:       s.tracer, // without attributes: the caller chooses name and address
		},
		Name:   spec.GetName(),
		Logger: s.log,
		Budget: s.budget,
	}
	if s.specRecorder != nil {
		config.OnCall = s.specRecorder.call
	}
	report, err := conn.TestConfig(ctx, config, reference)
	if errors.Is(err, vault.ErrAddressNotAllowed) {
		return nil, errAddressNotAllowed()
	}
	if err != nil {
		return nil, errInvalidRequest(field(specField(err), err.Error()))
	}
	return reportOf(ctx, report)
}

// specSettings turns what a caller describes into what a configuration file would say.
func specSettings(spec *secretsidecarv1.ConnectionSpec) conn.Settings {
	return conn.Settings{
		Endpoint: vault.Endpoint{
			Address: spec.GetAddress(), Namespace: spec.GetNamespace(),
			TLS: vault.TLS{CAPEM: spec.GetCaCertPem(), ServerName: spec.GetTlsServerName()},
		},
		Role: login.Role{
			AuthMount: spec.GetAuthMount(),
			RoleID:    login.Credential{Value: redact.New(spec.GetRoleId())},
			SecretID:  login.Credential{Value: redact.New(spec.GetSecretId())},
		},
	}
}

// credentialMistakes are those in the credentials, which Vault is not asked about.
func credentialMistakes(
	spec *secretsidecarv1.ConnectionSpec,
) []*errdetails.BadRequest_FieldViolation {
	var mistakes []*errdetails.BadRequest_FieldViolation
	check := func(name, text string) {
		_, err := login.Credential{Value: redact.New(text)}.Read(name)
		wrong, ok := errors.AsType[*login.CredentialError](err)
		switch {
		case !ok:
		case errors.Is(err, login.ErrPath):
			mistakes = append(mistakes, field(name, "holds a path: send what the file holds"))
		default:
			mistakes = append(mistakes, field(name, wrong.Problem+": "+wrong.Remedy))
		}
	}
	check("spec.role_id", spec.GetRoleId())
	check("spec.secret_id", spec.GetSecretId())
	return mistakes
}

func reportOf(
	ctx context.Context, report conn.Report,
) (*secretsidecarv1.TestConnectionResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	result := &secretsidecarv1.TestConnectionResponse{
		Ok:           report.OK(),
		VaultVersion: report.VaultVersion,
		TokenTtl:     durationpb.New(report.TokenTTL),
		Policies:     report.Policies,
	}
	for _, check := range report.Checks {
		result.Checks = append(result.Checks, &secretsidecarv1.ConnectionCheck{
			Name:    check.Name,
			Status:  secretsidecarv1.CheckStatus(check.Status), // #nosec G115 -- both are numbered from 1 in the same order
			Message: check.Message,
			Remedy:  check.Remedy,
			Took:    durationpb.New(check.Took),
		})
	}
	for _, mount := range report.Mounts {
		result.Mounts = append(result.Mounts, &secretsidecarv1.Mount{Path: mount.Path, Type: mount.Type, KvVersion: mount.KVVersion})
	}
	return result, nil
}

// specField names the field of a spec that an error of vault.New's is about: it begins with the
// setting's name.
func specField(err error) string {
	switch setting, _, _ := strings.Cut(err.Error(), ":"); setting {
	case "address", "role_id", "secret_id":
		return "spec." + setting
	case "tls":
		return "spec.ca_cert_pem"
	}
	return "spec"
}
