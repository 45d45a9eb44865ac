package docker

import (
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/race"
)

// BenchmarkDocker compares dockerd with the library on one machine. dockerd runs before the first round, with the image and its
// bridge.
//
// Attach is a network and a published port for a container: its start through dockerd's API, less that of a container
// without a network. The library makes the namespace as well.
//
// FirstByte is the time from nothing to the first HTTP answer through the published port, with the start of a process
// or container.
func BenchmarkDocker(b *testing.B) {
	m := newMachine(b, "nft")
	startDaemon(b, m)
	m.Run(b, "docker", "import", m.ImageTar(b), "probe")
	docker, library, run := newAPI(b, m), race.NewLibrary(b, m), race.Runner(b, m)

	started := func(network string) func(*testing.B, string) time.Duration {
		return func(b *testing.B, name string) time.Duration {
			b.Helper()
			docker.create(b, name, network)
			d := race.Took(func() { docker.start(b, name) })
			if network != "none" {
				race.Answered(b, m, name)
			}
			docker.remove(b, name)
			race.Gone(b, m)
			return d
		}
	}
	b.Run("Attach", func(b *testing.B) {
		race.Run(b, m, library.Attach(b), race.Contender{Name: "docker", Round: started("bridge"), Base: started("none")})
	})
	b.Run("FirstByte", func(b *testing.B) {
		race.Run(b, m, library.FirstByte(), run, race.Contender{Name: "docker", Round: func(b *testing.B, name string) time.Duration {
			b.Helper()
			d := race.Took(func() {
				docker.create(b, name, "bridge")
				docker.start(b, name)
				race.Answered(b, m, name)
			})
			docker.remove(b, name)
			race.Gone(b, m)
			return d
		}})
	})
}
