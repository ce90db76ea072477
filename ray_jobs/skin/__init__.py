"""Classification of skin lesions from dermoscopic pictures: prepare, train, evaluate."""
