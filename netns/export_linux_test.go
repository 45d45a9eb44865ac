package netns

// NewPoolOf makes a pool of what the function makes.
var NewPoolOf = newPool

// Ready returns how many namespaces are ready.
func (p *Pool) Ready() int { return len(p.ready) }

// OpenContainerIn is OpenContainer with another folder than /proc.
var OpenContainerIn = openContainer

// Errand runs the package's own code on a thread that may enter namespaces.
var Errand = errand
