package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// api is dockerd's API at its socket, without a process of the command docker.
type api struct{ http.Client }

func newAPI(b *testing.B, m *machine.Machine) *api {
	b.Helper()
	socket := m.Path("/run/docker.sock")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	b.Cleanup(transport.CloseIdleConnections)
	return &api{http.Client{Transport: transport}}
}

// do sends a request. A nil body is none.
func (a *api) do(b *testing.B, method, path string, body any) {
	b.Helper()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			b.Fatal(err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(b.Context(), method, "http://docker"+path, content)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := a.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	if err != nil {
		b.Fatalf("%s %s: %v", method, path, err)
	}
}

// create makes a container whose port 80 is published on port 8080, or one without a network.
func (a *api) create(b *testing.B, name, network string) {
	b.Helper()
	type object = map[string]any
	config := object{"Image": "probe", "Cmd": []string{"/bin/probe", "-name", name, "-http", ":80"}, "HostConfig": object{"NetworkMode": network}}
	if network != "none" {
		config["ExposedPorts"] = object{"80/tcp": object{}}
		config["HostConfig"] = object{
			"NetworkMode":  network,
			"PortBindings": object{"80/tcp": []object{{"HostIp": "0.0.0.0", "HostPort": "8080"}}},
		}
	}
	a.do(b, http.MethodPost, "/containers/create?name="+name, config)
}

// start returns when the container's process runs and its port is published.
func (a *api) start(b *testing.B, name string) {
	b.Helper()
	a.do(b, http.MethodPost, "/containers/"+name+"/start", nil)
}

// remove kills the container and removes it.
func (a *api) remove(b *testing.B, name string) {
	b.Helper()
	a.do(b, http.MethodDelete, "/containers/"+name+"?force=1", nil)
}
