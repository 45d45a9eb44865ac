package netns

// NewPoolOf makes a pool of what the function makes.
var NewPoolOf = newPool

// Ready returns how many namespaces are ready.
func (p *Pool) Ready() int { return len(p.ready) }

// OpenContainerIn is OpenContainer with another directory than /proc.
var OpenContainerIn = openContainer

// Held returns the open handles on the namespace with an inode number.
func Held(ino uint64) (list []*NS) {
	held.Lock()
	defer held.Unlock()
	for ns := range held.open {
		if ns.id.Ino == ino {
			list = append(list, ns)
		}
	}
	return list
}

// InNewNS runs the package's own code in a new namespace.
var InNewNS = inNewNS
