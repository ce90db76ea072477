"""The shape that jobs which come with dhctl share: phantoms, prepare, train, evaluate, predict."""
