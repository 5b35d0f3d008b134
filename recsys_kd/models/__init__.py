"""What is trained: the teacher (the only module that imports TorchRec) and the student."""
