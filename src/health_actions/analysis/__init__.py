"""What a trained model does with clips and videos: recognition, rejection, errors, saliency, behaviour, export."""
